// A guest that fails where the test says: see symbol_test.go.
static inline __attribute__((always_inline)) int quotient(int a, int b) { return a / b; }

static volatile int zero;

__attribute__((noinline)) int divide(int a) {
	return quotient(a, zero); // the quotient's line is 2
}

__attribute__((noinline)) int dead(int a) { return a + zero; } // the linker takes it out

__attribute__((noinline)) void spin(void) { for (;;) zero++; }

__attribute__((export_name("handle"))) void handle(void) {
#ifdef SPIN
	spin();
#endif
	zero = divide(7) + 1;
}
