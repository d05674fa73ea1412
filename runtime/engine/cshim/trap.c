// Traps: what went wrong, and where in the guest.
#include "internal.h"

#include <stdio.h>

enum { MAX_FRAMES = 32 };

static char *take_text(wasm_byte_vec_t *text) {
	char *s = strndup(text->data, text->size);
	wasm_byte_vec_delete(text);
	return s;
}

static void put_frame(FILE *f, size_t i, const wasm_frame_t *frame) {
	const wasm_name_t *name = wasmtime_frame_func_name(frame);
	fprintf(f, "%zu: ", i);
	if (name) fprintf(f, "%.*s ", (int)(name->size < 200 ? name->size : 200), name->data);
	// From the begin of the body, which runtime/image does not change; runtime/symbol reads this.
	fprintf(f, "(function %u+0x%zx)\n", wasm_frame_func_index(frame), wasm_frame_func_offset(frame));
}

static char *frames_text(const wasm_frame_vec_t *frames) {
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f) return NULL;
	for (size_t i = 0; i < frames->size && i < MAX_FRAMES; i++) put_frame(f, i, frames->data[i]);
	if (frames->size > MAX_FRAMES) fprintf(f, "and %zu more\n", frames->size - MAX_FRAMES);
	fclose(f);
	return text;
}

void sv_trap_describe(sv_inst *in) {
	wasm_byte_vec_t text;
	wasm_frame_vec_t frames;
	wasmtime_trap_code_t code = SV_TRAP_OTHER;
	if (in->trap) {
		wasmtime_trap_code(in->trap, &code);
		wasm_trap_message(in->trap, &text);
		wasm_trap_trace(in->trap, &frames);
	} else {
		wasmtime_error_message(in->error, &text);
		wasmtime_error_wasm_trace(in->error, &frames);
	}
	in->v.trap_code = in->own_code ? in->own_code : in->step == 0 ? SV_TRAP_START : code;
	in->v.trap_message = take_text(&text);
	in->v.trap_trace = frames_text(&frames);
	wasm_frame_vec_delete(&frames);
	if (in->trap) wasm_trap_delete(in->trap);
	if (in->error) wasmtime_error_delete(in->error);
	in->trap = NULL;
	in->error = NULL;
}
