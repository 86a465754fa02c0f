/* One line of TAP for each test; the first failure ends the program. */
#pragma once

/* Names the test that runs from now on: a sentence. */
void tap_begin(const char *sentence, ...) __attribute__((format(printf, 1, 2)));

void tap_ok(void);

/* `reason` says what is broken and where. Exits. */
_Noreturn void tap_not_ok(const char *reason);

void tap_note(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* The last line: how many tests there were. */
void tap_end(void);
