// A guest in C with its library: what libc costs.
#include <stdint.h>
#include <stdio.h>

__attribute__((import_module("selvage_v1"), import_name("response_head"))) int32_t response_head(uint32_t status, const void *p, uint32_t n);
__attribute__((import_module("selvage_v1"), import_name("response_write"))) int32_t response_write(const void *p, uint32_t n);

// One header, content-type: text/plain, as response_head takes it.
static const char pairs[] = "\x01\0\0\0\x0c\0\0\0content-type\x0a\0\0\0text/plain";

__attribute__((export_name("handle"))) void handle(void) {
	char body[64];
	int n = snprintf(body, sizeof body, "hello, world %d\n", 42);
	response_head(200, pairs, sizeof pairs - 1);
	response_write(body, (uint32_t)n);
}
