// Host calls: how a guest's import reaches a builtin in C or suspends to Go.
#include "internal.h"

#include <stdio.h>

const sv_builtin *sv_builtin_get(uint32_t id) {
	const sv_builtin *b = sv_builtin_native(id);
	return b ? b : sv_builtin_wasip1(id);
}

const char *sv_builtin_signature(uint32_t id) {
	const sv_builtin *b = sv_builtin_get(id);
	return b ? b->signature : NULL;
}

bool sv_builtin_suspends(uint32_t id) {
	const sv_builtin *b = sv_builtin_get(id);
	return b && b->suspends;
}

sv_verdict sv_die(sv_inst *in, uint32_t code, const char *message) {
	in->own_code = code;
	free(in->v.fail_message);
	in->v.fail_message = strdup(message);
	return SV_DIE;
}

static wasm_trap_t *make_trap(const sv_inst *in) {
	const char *message = in->v.fail_message ? in->v.fail_message : "failed by the host";
	return wasmtime_trap_new(message, strlen(message));
}

// ---- calls that never suspend

static uint64_t raw_get(uint8_t type, const wasmtime_val_raw_t *v) {
	return type == WASM_I32 || type == WASM_F32 ? (uint32_t)v->i32 : (uint64_t)v->i64;
}

static wasm_trap_t *call_now(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *v, size_t n) {
	(void)caller, (void)n;
	const sv_import *im = env;
	sv_inst *in = sv_current;
	uint64_t args[SV_MAX_ARGS], result = 0;
	for (int i = 0; i < im->nparams; i++) args[i] = raw_get(im->params[i], &v[i]);
	in->v.host_calls++;
	in->v.asked |= im->builtin->asks;
	if (im->builtin->call(in, args, &result) != SV_OK) return make_trap(in);
	if (im->nresults) v[0].i64 = (int64_t)result;
	return NULL;
}

// ---- calls that may suspend

static void set_result(const sv_import *im, wasmtime_val_t *to, int64_t value) {
	if (!im->nresults) return;
	to->kind = im->result;
	to->of.i64 = value; // the low half is the i32
}

static bool at_once(void *env) {
	(void)env;
	return true;
}

// Polled by wasmtime until it says that the call is over.
static bool once_answered(void *env) {
	sv_inst *in = env;
	if (!in->v.answered) return false;
	const sv_import *im = in->waiting;
	in->waiting = NULL;
	in->v.answered = false;
	in->v.op = 0;
	if (in->v.fail_code) {
		in->own_code = in->v.fail_code;
		*in->wait_trap = make_trap(in);
		return true;
	}
	int64_t value = in->v.result;
	if (im->builtin && im->builtin->finish) value = im->builtin->finish(in, in->v.args, value);
	set_result(im, in->wait_result, value);
	return true;
}

static wasm_trap_t *refuse_wait(sv_inst *in, const sv_import *im) {
	char message[200];
	snprintf(message, sizeof message, "called %.120s, which is not allowed during start-up", im->name);
	sv_die(in, SV_TRAP_HOSTCALL, message);
	return make_trap(in);
}

static void call_wait(void *env, wasmtime_caller_t *caller, const wasmtime_val_t *args, size_t nargs, wasmtime_val_t *results, size_t nresults,
	wasm_trap_t **trap, wasmtime_async_continuation_t *k) {
	(void)caller, (void)nargs, (void)nresults;
	const sv_import *im = env;
	sv_inst *in = sv_current;
	*k = (wasmtime_async_continuation_t){.callback = at_once, .env = in};
	for (int i = 0; i < im->nparams; i++) {
		bool narrow = im->params[i] == WASM_I32 || im->params[i] == WASM_F32;
		in->v.args[i] = narrow ? (uint32_t)args[i].of.i32 : (uint64_t)args[i].of.i64;
	}
	in->v.nargs = im->nparams;
	in->v.host_calls++;
	uint64_t result = 0;
	sv_verdict verdict = im->builtin ? im->builtin->call(in, in->v.args, &result) : SV_WAIT;
	if (verdict == SV_DIE) {
		*trap = make_trap(in);
	} else if (verdict == SV_OK) {
		set_result(im, results, (int64_t)result);
	} else if (in->no_calls) {
		*trap = refuse_wait(in, im);
	} else {
		in->v.op = im->op;
		in->v.answered = false;
		in->v.fail_code = 0;
		in->v.crossings++;
		in->waiting = im;
		in->wait_result = results;
		in->wait_trap = trap;
		k->callback = once_answered;
	}
}

// ---- the table of imports

char *sv_linker_new(sv_linker **out) {
	*out = malloc(sizeof **out);
	if (!*out) return strdup("link: out of memory");
	(*out)->linker = wasmtime_linker_new(sv_engine);
	return NULL;
}

void sv_linker_free(sv_linker *linker) {
	wasmtime_linker_delete(linker->linker);
	free(linker);
}

static void import_free(void *p) {
	sv_import *im = p;
	free(im->name);
	free(im);
}

static void types_to_vec(const uint8_t *kinds, size_t n, wasm_valtype_vec_t *out) {
	wasm_valtype_vec_new_uninitialized(out, n);
	for (size_t i = 0; i < n; i++) out->data[i] = wasm_valtype_new(kinds[i]);
}

static sv_import *import_make(const char *module, size_t module_len, const char *name, size_t name_len) {
	sv_import *im = calloc(1, sizeof *im);
	if (im && asprintf(&im->name, "%.*s.%.*s", (int)module_len, module, (int)name_len, name) < 0) {
		free(im);
		return NULL;
	}
	return im;
}

// Kinds come as wasm_valkind_t; Go has checked counts and signature.
char *sv_linker_define(sv_linker *linker, const char *module, size_t module_len, const char *name, size_t name_len,
	const uint8_t *params, size_t nparams, const uint8_t *results, size_t nresults, uint32_t op, uint32_t builtin) {
	if (nparams > SV_MAX_ARGS || nresults > 1) return strdup("link: too many parameters or results");
	sv_import *im = import_make(module, module_len, name, name_len);
	if (!im) return strdup("link: out of memory");
	im->builtin = sv_builtin_get(builtin);
	im->op = op;
	im->nparams = (uint8_t)nparams;
	im->nresults = (uint8_t)nresults;
	memcpy(im->params, params, nparams);
	if (nresults) im->result = results[0];
	wasm_valtype_vec_t from, to;
	types_to_vec(params, nparams, &from);
	types_to_vec(results, nresults, &to);
	wasm_functype_t *type = wasm_functype_new(&from, &to);
	wasmtime_error_t *error = im->builtin && !im->builtin->suspends
		? wasmtime_linker_define_func_unchecked(linker->linker, module, module_len, name, name_len, type, call_now, im, import_free)
		: wasmtime_linker_define_async_func(linker->linker, module, module_len, name, name_len, type, call_wait, im, import_free);
	wasm_functype_delete(type);
	return error ? sv_error_take(error) : NULL;
}
