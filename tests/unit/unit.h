/* cmocka and what it wants before it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

/* A test is named by the sentence that it shows, not by its function. */
#define IT(sentence, function)                                                                     \
	{                                                                                          \
		.name = (sentence), .test_func = (function)                                        \
	}

/* Begins the name of a test that an ordinary user skips: why is told with the skip. */
#define AS_ROOT "needs root: "

static inline void needs_root(void)
{
	if (geteuid() != 0)
		skip();
}
