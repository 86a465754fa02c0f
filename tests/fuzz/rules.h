/* What holds of the rules of every profile, whatever they are applied to. */
#pragma once

#include "fuzz.h"
#include "profile.h"

/* Applies all of a profile to one text; byte strings with a NUL behind them. */
void rules_hold(const struct profile *profile, const char *screen, const char *title,
		const char *prompt);

/* Likewise to a line that a program of mode stream prints. */
void events_hold(const struct profile *profile, const char *event);
