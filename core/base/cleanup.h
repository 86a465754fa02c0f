/* Ownership of locals: AP_CLEANUP_FREE frees at the end of the scope, ap_steal() hands over. */
#pragma once

#include <stdlib.h>
#include <unistd.h>

static inline void ap_cleanup_free(void *ptr)
{
	free(*(void **)ptr);
}

static inline void ap_cleanup_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define AP_CLEANUP_FREE	 __attribute__((cleanup(ap_cleanup_free)))
#define AP_CLEANUP_CLOSE __attribute__((cleanup(ap_cleanup_close)))

/* Returns the value of a pointer variable, and sets the variable to NULL. */
#define ap_steal(ptr)                                                                              \
	__extension__({                                                                            \
		__typeof__(ptr) _taken = (ptr);                                                    \
		(ptr) = NULL;                                                                      \
		_taken;                                                                            \
	})
