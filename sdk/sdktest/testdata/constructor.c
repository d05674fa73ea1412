// A guest in C with its library that does work at start-up: a constructor, run
// by _initialize, fills a table on the heap and grows the memory.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((import_module("selvage_v1"), import_name("response_head"))) int32_t response_head(uint32_t status, const void *p, uint32_t n);
__attribute__((import_module("selvage_v1"), import_name("response_write"))) int32_t response_write(const void *p, uint32_t n);

enum { NUMBERS = 1 << 18 };
static uint32_t *table;
static unsigned answered;

__attribute__((constructor)) static void fill(void) {
	table = malloc(NUMBERS * sizeof *table);
	for (uint32_t i = 0, x = 1; i < NUMBERS; i++) table[i] = x = x * 1664525u + 1013904223u;
}

__attribute__((export_name("handle"))) void handle(void) {
	char *body = malloc(4096), *end = body;
	answered++;
	for (int i = 0; i < NUMBERS; i += NUMBERS / 64) end += sprintf(end, "%d %u %u\n", i, answered, table[i]++);
	response_head(200, NULL, 0);
	response_write(body, (uint32_t)(end - body));
	free(body);
}
