/* Why the last refused write of each user was refused. Keeps a bounded number of users and forgets
 * the least recent. */
#pragma once

#include <sys/types.h>

#include "agentpool.h"

void last_error_set(uid_t uid, const char *text);
void last_error_show(uid_t uid, struct ap_buf *out);
