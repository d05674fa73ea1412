#include "textflag.h"

// func onAbort()
// The handler of SIGABRT: exit_group(exitAborted). It may run on any thread, also
// on one that Go has never seen, and uses neither stack nor memory.
TEXT ·onAbort(SB),NOSPLIT|NOFRAME,$0-0
	MOVL	$13, DI
	MOVL	$231, AX
	SYSCALL
	INT	$3

// func onAbortAddress() uintptr
TEXT ·onAbortAddress(SB),NOSPLIT,$0-8
	LEAQ	·onAbort(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
