// Package abi states the native contract between a guest and its host: import
// names, status codes and byte layouts. It holds constants only and imports
// nothing. The Go SDK repeats these values in its own module; a test in this
// package keeps the two equal.
//
// # Guest exports
//
//   - memory: the one linear memory.
//   - handle() : answers one request. Required.
//   - _initialize(): run once before anything else, if present (WASI reactor).
//   - selvage_start(): run once after _initialize, if present. The Go SDK runs
//     main.main here, up to edge.Serve. A snapshot is taken after it.
//
// # Layouts
//
// All integers are little-endian. A string is a u32 length and that many bytes.
// A list of pairs is a u32 count and, for each, two strings.
//
// Request head (request_head):
//
//	u32    flags          bit 0: a body may follow
//	i64    content length, -1 if unknown
//	string method
//	string scheme          "https" or "http"
//	string authority       canonical host, with the port if it is not the default
//	string target          path and query as the client sent them, canonicalised
//	string protocol        "HTTP/1.1", "HTTP/2.0" or "HTTP/3.0"
//	pairs  metadata        see Meta*; unknown names must be ignored
//	pairs  headers         names as the client sent them; repeated names repeat
//
// Response headers (response_head), trailers and fetch response headers: pairs.
//
// Environment (environment): pairs of variable name and value.
//
// Fetch request (fetch_start): string method, string url, pairs headers, u32
// flags (bit 0: a body follows by fetch_write).
// Fetch response head (fetch_head): u32 status, i64 content length (-1 unknown), pairs headers.
//
// KV entry header (KVEntrySize bytes written at the entry pointer of kv_get):
//
//	u64 revision
//	i64 expiry, Unix milliseconds on the store's clock; 0 for never
//	u32 value length (the whole value's, also when the buffer was too small)
//	u32 reserved, zero
//
// KV page (kv_list): u32 count; for each key: string key, u64 revision, i64 expiry;
// then string cursor, empty when the listing is complete. That of kv_keys has also
// string metadata for each key, after the expiry.
//
// KV keys (kv_read): u32 count, 1 to MaxReadKeys, and as many strings. Its answer: u32 count; for
// each key in their order: i32 status, StatusOK or StatusNotFound, u64 revision, i64 expiry,
// i64 staleness (the answer was the newest at most so many milliseconds ago; -1 not known), string metadata, string value.
package abi

// Module is the import module of the native calls, version 1.
const Module = "selvage_v1"

// Exports a guest may or must have.
const (
	ExportMemory     = "memory"
	ExportHandle     = "handle"
	ExportInitialize = "_initialize"
	ExportStart      = "selvage_start"
)

// Calls of Module. Types are WebAssembly core types; every pointer is an i32
// offset into the guest's memory. A result below zero is a Status.
const (
	// request_head(buf i32, cap i32) -> i32: copies the request head into buf and
	// returns its length. When cap is too small nothing is written and the needed
	// length is returned. May be called any number of times.
	CallRequestHead = "request_head"
	// request_read(buf i32, cap i32) -> i32: waits for body bytes, writes up to cap
	// of them and returns how many; 0 is the end of the body.
	CallRequestRead = "request_read"
	// response_head(status i32, headers i32, headers_len i32) -> i32: sets status and
	// headers (pairs). Once per request for a final status; before any write. 1xx statuses other
	// than 101 may come before it.
	CallResponseHead = "response_head"
	// response_write(ptr i32, len i32) -> i32: appends to the body and returns len. Small writes
	// are gathered; a full buffer is sent, and the call waits until the client takes it (back-pressure).
	// Without a response_head before it, status 200 with no headers is meant.
	CallResponseWrite = "response_write"
	// response_flush() -> i32: sends what was gathered, waits until it is handed to the connection.
	CallResponseFlush = "response_flush"
	// request_trailers(buf i32, cap i32) -> i32: the fields that came after the request's body (pairs), like
	// request_head; StatusState until request_read has answered 0.
	CallRequestTrailers = "request_trailers"
	// response_trailers(list i32, list_len i32) -> i32: the fields (pairs) to send after the body, in place of those
	// of an earlier call. Those that may not come there (RFC 9110 §6.5.1) are left out, all of them where the client's
	// protocol or the response has no place for them: HTTP/1.0, and HTTP/1.1 with a Content-Length.
	CallResponseTrailers = "response_trailers"
	// log(level i32, ptr i32, len i32) -> i32: one line (or more) to the function's log; levels are
	// slog's: -4 debug, 0 info, 4 warn, 8 error. Over the limit it is dropped and counted.
	CallLog = "log"
	// clock_now(kind i32) -> i64: nanoseconds; kind 0 is the wall clock (Unix), 1 monotonic from an arbitrary point.
	CallClockNow = "clock_now"
	// sleep(nanoseconds i64) -> i32: waits; no thread is held.
	CallSleep = "sleep"
	// random(ptr i32, len i32) -> i32: fills from the kernel's generator. Never part of a snapshot.
	CallRandom = "random"
	// environment(buf i32, cap i32) -> i32: like request_head, for the function's variables.
	CallEnvironment = "environment"

	// kv_open(name i32, name_len i32) -> i32: a handle for the namespace bound under that name, or StatusDenied.
	CallKVOpen = "kv_open"
	// kv_get(ns i32, key i32, key_len i32, buf i32, cap i32, entry i32) -> i32: writes the entry header at
	// entry and up to cap bytes of the value at buf; StatusOK, StatusTooSmall (header written, no value), StatusNotFound.
	CallKVGet = "kv_get"
	// kv_ask(ns i32, key i32, key_len i32) -> i32: begins a kv_get and returns a handle at once, one that fetch_start does not
	// give; StatusLimit if MaxAsks are not taken yet. wait has it ready, whatever its events, when kv_take would answer at once.
	CallKVAsk = "kv_ask"
	// kv_take(h i32, buf i32, cap i32, entry i32) -> i32: waits for the answer, which is kv_get's; the handle is given back
	// unless it is StatusTooSmall. fetch_close gives it back too.
	CallKVTake = "kv_take"
	// kv_put(ns, key, key_len, value, value_len i32, ttl_ms i64, if_revision i64) -> i64: the new revision.
	// ttl_ms 0 is forever. if_revision -1 is unconditional, 0 "only if absent", else "only at that revision" (StatusConflict).
	CallKVPut = "kv_put"
	// kv_delete(ns, key, key_len i32, if_revision i64) -> i64: the deletion's revision; if_revision as for kv_put.
	CallKVDelete = "kv_delete"
	// kv_list(ns, prefix, prefix_len, cursor, cursor_len, limit, buf, cap i32) -> i32: writes one page and returns
	// its length; StatusTooSmall when not even one key fits. Fewer keys than limit are returned when the buffer fills.
	CallKVList = "kv_list"
	// kv_keys(ns, prefix, prefix_len, cursor, cursor_len, limit, buf, cap i32) -> i32: kv_list with the keys' metadata.
	CallKVKeys = "kv_keys"
	// kv_read(ns, keys, keys_len i32, at_least i64, buf, cap i32) -> i32: answers for several keys and returns the answer's length. When
	// cap is too small nothing is written, the needed length is returned, and the same call right after is answered from what was read;
	// it is read anew, for as many operations again, where the guest's memory limit has no room for it and for as large a buffer. at_least is
	// ReadAny, ReadStrong, or a revision that the answer must reflect. Each key is a KV operation. StatusTooLarge when the answer is over 32 MiB.
	CallKVRead = "kv_read"
	// kv_write(ns, key, key_len, value, value_len, metadata, metadata_len i32, ttl_ms i64, if_revision i64) -> i64: kv_put with metadata, at
	// most 1,024 bytes of it.
	CallKVWrite = "kv_write"
	// kv_increment(ns, key, key_len i32, delta i64, sum i32) -> i64: adds delta to a decimal number of 64 bits, 0 if the key is not
	// there, in one step; writes the sum (i64) at sum and returns the revision. StatusInvalid if the value is no such number or the sum is over 64 bits.
	CallKVIncrement = "kv_increment"

	// fetch_start(req i32, req_len i32) -> i32: starts a subrequest to a bound backend; returns a handle at once.
	CallFetchStart = "fetch_start"
	// fetch_write(h i32, ptr i32, len i32) -> i32: request body bytes, with back-pressure; len 0 ends the body.
	CallFetchWrite = "fetch_write"
	// fetch_head(h i32, buf i32, cap i32) -> i32: waits for the response head; like request_head.
	CallFetchHead = "fetch_head"
	// fetch_read(h i32, buf i32, cap i32) -> i32: like request_read.
	CallFetchRead = "fetch_read"
	// fetch_trailers(h i32, buf i32, cap i32) -> i32: the response's trailers (pairs), like request_head;
	// StatusState until fetch_read has answered 0.
	CallFetchTrailers = "fetch_trailers"
	// fetch_wait(list i32, count i32, nanoseconds i64) -> i32: waits until fetch_head of one of the handles
	// (count u32 values at list, at most 64) would answer at once, and returns that one's place in the list, the lowest if
	// several would; count when the time is over first. Below 0 there is no such time. For guests from before wait.
	CallFetchWait = "fetch_wait"
	// wait(list i32, count i32, nanoseconds i64) -> i32: waits until one of count entries at list is ready, and returns that one's
	// place in the list, the lowest if several are; count when the time is over first. Below 0 there is no such time. An entry is
	// i32 handle, of fetch_start, kv_ask or WaitExchange, and u32 events, of which any may be ready: WaitRead, request_read or
	// fetch_read would answer at once; WaitWrite, response_write, response_flush or fetch_write would; WaitHead, fetch_head
	// would. A call that would fail is ready. All entries get under way meanwhile, for the node reads up to 16 KiB of each body ahead
	// of a guest that waits for it, and the first write of up to WaitBytes (or flush) after its entry was ready goes on behind the
	// guest: how it ended shows at the next. A guest with several threads of its own goes on with one of them after each wait.
	// StatusTooLarge for more than MaxWaits entries, StatusInvalid for events that there are not.
	CallWait = "wait"
	// fetch_close(h i32) -> i32: gives the handle back; cancels what is still under way.
	CallFetchClose = "fetch_close"
)

// Status is what a call returns below zero.
const (
	StatusOK          = 0
	StatusInvalid     = -1 // an argument is not of the call's form
	StatusNotFound    = -2
	StatusDenied      = -3  // not bound, or bound without that access
	StatusConflict    = -4  // the revision differs
	StatusTooSmall    = -5  // the buffer does not hold the answer
	StatusTooLarge    = -6  // over a documented limit
	StatusUnavailable = -7  // the other side cannot be reached now; the call may be tried again. A write may have happened: read, or write with a condition, where that matters
	StatusLimit       = -8  // the invocation's allowance for this call is used up
	StatusClosed      = -9  // the client, the body or the handle is gone
	StatusState       = -10 // not now: the response head was already sent, and the like
	StatusInternal    = -11
)

// Metadata names in the request head.
const (
	MetaRequestID = "request-id"
	MetaClient    = "client" // ip:port of the client
	MetaPoP       = "pop"
	MetaNode      = "node"
	MetaRegion    = "region"
	MetaProject   = "project"
	MetaFunction  = "function"
	MetaVersion   = "version" // the bundle's digest

	// Where the client is, as far as the node's databases know; what is not known is left out.
	MetaCountry      = "country"     // ISO 3166-1 alpha-2
	MetaSubdivision  = "subdivision" // ISO 3166-2 without the country, or a name
	MetaCity         = "city"        // in English
	MetaLatitude     = "latitude"    // degrees
	MetaLongitude    = "longitude"   // degrees
	MetaTimeZone     = "time-zone"   // IANA name
	MetaASN          = "asn"         // autonomous system number
	MetaOrganization = "organization"
	MetaEU           = "eu"            // "1" if the country is in the European Union
	MetaAssumed      = "place-assumed" // "1" if no database knows the address and the node's default is told
)

// Flags of the request head and of fetch requests.
const FlagBody = 1

// WaitExchange is the handle of the request and its response, in wait.
const WaitExchange = 0

// Events of wait.
const (
	WaitRead  = 1
	WaitWrite = 2
	WaitHead  = 4
)

// Bounds of wait, and of what is waited for.
const (
	MaxAsks   = 32
	MaxWaits  = 256
	WaitSize  = 8        // bytes of an entry
	WaitBytes = 32 << 10 // the largest write that goes on behind the guest
)

// Freshness that kv_read asks for.
const (
	ReadAny     = 0
	ReadStrong  = -1 // as the truth has it now
	MaxReadKeys = 100
)

// KVEntrySize is the size of the entry header kv_get writes, in bytes.
const KVEntrySize = 24
