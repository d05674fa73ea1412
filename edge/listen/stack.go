package listen

// handlerStack is about what a handler needs of a goroutine's stack, in bytes: with what is
// below it, what fits the 8 KiB that a waiting stream then holds.
const handlerStack = 6 << 10

// growStack makes room for a handler while there is little on the stack to move.
// Every stream of HTTP/2 and HTTP/3 has a goroutine of its own, which begins with
// 2 KiB: grown frame by frame, deep inside the handler, its stack would be copied
// three times, each time with more to adjust.
//
//go:noinline
func growStack() byte {
	var room [handlerStack]byte
	return room[index]
}

// index is not a constant, or the compiler would leave the room out.
var index = handlerStack - 1
