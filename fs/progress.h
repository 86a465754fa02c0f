/* What the person at a terminal sees who has mounted a pool: how the first template comes along. */
#pragma once

/* Shows on standard error, which is a terminal, how many files of a pool's first template are
 * written, and returns when it is made, or when the pool makes none. Reads the mount as anybody
 * may: the pool goes on if the process is interrupted. */
void progress_show(const char *mountpoint);
