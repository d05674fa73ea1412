#include "textflag.h"

// func onSignal()
// A signal handler: exit_group(100 + signal), see exitSignal. It may run on any
// thread, also on one that Go has never seen, and uses neither stack nor memory.
TEXT ·onSignal(SB),NOSPLIT|NOFRAME,$0-0
	ADDL	$100, DI
	MOVL	$231, AX
	SYSCALL
	INT	$3

// func onSignalAddress() uintptr
TEXT ·onSignalAddress(SB),NOSPLIT,$0-8
	LEAQ	·onSignal(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
