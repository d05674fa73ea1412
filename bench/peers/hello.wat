;; The smallest useful guest of the native ABI: one head, one body, one call each.
(module
  (import "selvage_v1" "response_head" (func $head (param i32 i32 i32) (result i32)))
  (import "selvage_v1" "response_write" (func $write (param i32 i32) (result i32)))
  (memory (export "memory") 17)
  ;; pairs: one header, content-type: text/plain
  (data (i32.const 1024) "\01\00\00\00\0c\00\00\00content-type\0a\00\00\00text/plain")
  (data (i32.const 2048) "hello, world\n")
  (func (export "handle")
    (drop (call $head (i32.const 200) (i32.const 1024) (i32.const 34)))
    (drop (call $write (i32.const 2048) (i32.const 13)))))
