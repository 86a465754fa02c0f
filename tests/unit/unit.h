/* cmocka and what it wants before it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A test is named by the sentence that it shows, not by its function. */
#define IT(sentence, function)                                                                     \
	{                                                                                          \
		.name = (sentence), .test_func = (function)                                        \
	}
