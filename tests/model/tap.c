#include "tap.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static unsigned n_tests;
static char running[256];

void tap_begin(const char *sentence, ...)
{
	va_list args;
	va_start(args, sentence);
	vsnprintf(running, sizeof running, sentence, args);
	va_end(args);
	n_tests++;
}

void tap_ok(void)
{
	printf("ok %u - %s\n", n_tests, running);
	fflush(stdout);
}

void tap_not_ok(const char *reason)
{
	printf("not ok %u - %s: %s\n", n_tests, running, reason);
	fflush(stdout);
	_exit(1); /* also out of a signal handler */
}

void tap_note(const char *text, ...)
{
	va_list args;
	va_start(args, text);
	printf("# ");
	vprintf(text, args);
	printf("\n");
	va_end(args);
}

void tap_end(void)
{
	printf("1..%u\n", n_tests);
}
