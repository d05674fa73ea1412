// Code: compiled modules, and programs made from them.
#include "internal.h"

#include <stdio.h>

// ---- code

static char *adopt(wasmtime_module_t *module, sv_code **out) {
	*out = malloc(sizeof **out);
	if (!*out) {
		wasmtime_module_delete(module);
		return strdup("code: out of memory");
	}
	(*out)->module = module;
	atomic_fetch_add(&sv_count.codes, 1);
	return NULL;
}

char *sv_load(const uint8_t *artifact, size_t n, sv_code **out) {
	wasmtime_module_t *module;
	wasmtime_error_t *error = wasmtime_module_deserialize(sv_engine, artifact, n, &module);
	return error ? sv_error_take(error) : adopt(module, out);
}

char *sv_load_file(const char *path, sv_code **out) {
	wasmtime_module_t *module;
	wasmtime_error_t *error = wasmtime_module_deserialize_file(sv_engine, path, &module);
	return error ? sv_error_take(error) : adopt(module, out);
}

void sv_code_free(sv_code *code) {
	wasmtime_module_delete(code->module);
	free(code);
	atomic_fetch_sub(&sv_count.codes, 1);
}

static void put32(FILE *f, size_t n) {
	uint32_t v = (uint32_t)n;
	fwrite(&v, sizeof v, 1, f);
}

static void put64(FILE *f, uint64_t v) { fwrite(&v, sizeof v, 1, f); }

static void put_name(FILE *f, const wasm_name_t *name) {
	put32(f, name ? name->size : 0);
	if (name) fwrite(name->data, 1, name->size, f);
}

static void put_types(FILE *f, const wasm_valtype_vec_t *types) {
	put32(f, types->size);
	for (size_t i = 0; i < types->size; i++) putc(wasm_valtype_kind(types->data[i]), f);
}

// A record: kind, module, name; then parameters and results, or minimum and maximum.
static void put_extern(FILE *f, const wasm_name_t *module, const wasm_name_t *name, const wasm_externtype_t *type) {
	wasm_externkind_t kind = wasm_externtype_kind(type);
	putc(kind, f);
	put_name(f, module);
	put_name(f, name);
	if (kind == WASM_EXTERN_FUNC) {
		const wasm_functype_t *func = wasm_externtype_as_functype_const(type);
		put_types(f, wasm_functype_params(func));
		put_types(f, wasm_functype_results(func));
	} else if (kind == WASM_EXTERN_MEMORY) {
		const wasm_memorytype_t *memory = wasm_externtype_as_memorytype_const(type);
		uint64_t max = UINT64_MAX;
		wasmtime_memorytype_maximum(memory, &max);
		put64(f, wasmtime_memorytype_minimum(memory));
		put64(f, max);
	}
}

char *sv_code_describe(sv_code *code, uint8_t **out, size_t *n) {
	FILE *f = open_memstream((char **)out, n);
	if (!f) return sv_errno("code: describe");
	wasm_importtype_vec_t imports;
	wasmtime_module_imports(code->module, &imports);
	put32(f, imports.size);
	for (size_t i = 0; i < imports.size; i++)
		put_extern(f, wasm_importtype_module(imports.data[i]), wasm_importtype_name(imports.data[i]), wasm_importtype_type(imports.data[i]));
	wasm_importtype_vec_delete(&imports);
	wasm_exporttype_vec_t exports;
	wasmtime_module_exports(code->module, &exports);
	put32(f, exports.size);
	for (size_t i = 0; i < exports.size; i++)
		put_extern(f, NULL, wasm_exporttype_name(exports.data[i]), wasm_exporttype_type(exports.data[i]));
	wasm_exporttype_vec_delete(&exports);
	return fclose(f) ? sv_errno("code: describe") : NULL;
}

// ---- programs

char *sv_prog_new(sv_code *code, sv_image *image, sv_linker *linker, uint64_t memory_min, uint64_t memory_max, sv_prog **out) {
	if (!image->sealed) return strdup("program: the image is not sealed");
	sv_prog *prog = calloc(1, sizeof *prog);
	if (!prog) return strdup("program: out of memory");
	wasmtime_error_t *error = wasmtime_linker_instantiate_pre(linker->linker, code->module, &prog->pre);
	if (error) {
		free(prog);
		return sv_error_take(error);
	}
	prog->refs = 1;
	prog->memory_min = memory_min;
	prog->memory_max = memory_max;
	prog->image = image;
	sv_image_ref(image);
	*out = prog;
	return NULL;
}

static bool name_copy(sv_name *to, const char *text, size_t n) {
	to->text = strndup(text, n);
	to->len = n;
	return to->text != NULL;
}

char *sv_prog_entry(sv_prog *prog, const char *name, size_t n) {
	sv_name *more = realloc(prog->entries, (prog->nentries + 1) * sizeof *more);
	if (!more) return strdup("program: out of memory");
	prog->entries = more;
	if (!name_copy(&more[prog->nentries], name, n)) return strdup("program: out of memory");
	prog->nentries++;
	return NULL;
}

static bool preset_value(wasmtime_val_t *value, uint8_t type, uint64_t bits) {
	memset(value, 0, sizeof *value);
	if (type < 0x7c || type > 0x7f) return false;
	value->kind = 0x7f - type; // 0x7f i32, 0x7e i64, 0x7d f32, 0x7c f64
	memcpy(&value->of, &bits, sizeof bits);
	return true;
}

char *sv_prog_global(sv_prog *prog, const char *name, size_t n, uint8_t type, uint64_t bits) {
	sv_preset *more = realloc(prog->globals, (prog->nglobals + 1) * sizeof *more);
	if (!more) return strdup("program: out of memory");
	prog->globals = more;
	sv_preset *p = &more[prog->nglobals];
	if (!preset_value(&p->value, type, bits)) return strdup("program: a global of that type cannot be set");
	if (!name_copy(&p->name, name, n)) return strdup("program: out of memory");
	prog->nglobals++;
	return NULL;
}

char *sv_prog_mutable(sv_prog *prog, const char *name, size_t n) {
	sv_preset *more = realloc(prog->mutables, (prog->nmutables + 1) * sizeof *more);
	if (!more) return strdup("program: out of memory");
	prog->mutables = more;
	sv_preset *p = &more[prog->nmutables];
	memset(p, 0, sizeof *p);
	p->value.kind = SV_ZERO;
	for (size_t i = 0; i < prog->nglobals; i++) {
		const sv_preset *g = &prog->globals[i];
		if (g->name.len == n && !memcmp(g->name.text, name, n)) p->value = g->value;
	}
	if (!name_copy(&p->name, name, n)) return strdup("program: out of memory");
	prog->nmutables++;
	return NULL;
}

void sv_prog_renewable(sv_prog *prog) { atomic_store(&prog->renewable, true); }

char *sv_prog_blob(sv_prog *prog, int which, const uint8_t *data, size_t n, uint32_t count) {
	sv_blob *blob = &prog->blobs[which];
	uint8_t *copy = malloc(n + 1);
	if (!copy) return strdup("program: out of memory");
	memcpy(copy, data, n);
	free(blob->data);
	*blob = (sv_blob){.data = copy, .len = n, .count = count};
	return NULL;
}

void sv_prog_unref(sv_prog *prog) {
	if (atomic_fetch_sub(&prog->refs, 1) != 1) return;
	wasmtime_instance_pre_delete(prog->pre);
	sv_image_free(prog->image);
	for (size_t i = 0; i < prog->nentries; i++) free(prog->entries[i].text);
	for (size_t i = 0; i < prog->nglobals; i++) free(prog->globals[i].name.text);
	for (size_t i = 0; i < prog->nmutables; i++) free(prog->mutables[i].name.text);
	for (int i = 0; i < SV_BLOBS; i++) free(prog->blobs[i].data);
	free(prog->entries);
	free(prog->globals);
	free(prog->mutables);
	free(prog);
}

void sv_prog_free(sv_prog *prog) {
	atomic_store(&prog->closed, true);
	sv_boxes_drop(prog);
	sv_prog_unref(prog);
}
