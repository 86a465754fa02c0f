#include "last_error.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define N_USERS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static struct {
	uid_t uid;
	char text[sizeof((struct ap_err *)0)->text];
} users[N_USERS]; /* most recent first */
static unsigned n_users;

static unsigned place_of(uid_t uid)
{
	unsigned i = 0;
	while (i < n_users && users[i].uid != uid)
		i++;
	return i;
}

void last_error_set(uid_t uid, const char *text)
{
	pthread_mutex_lock(&lock);
	unsigned place = place_of(uid);
	if (place == n_users && n_users < N_USERS)
		n_users++;
	if (place == N_USERS)
		place--;
	memmove(&users[1], &users[0], place * sizeof users[0]);
	users[0].uid = uid;
	snprintf(users[0].text, sizeof users[0].text, "%s", text);
	ap_text_tame(users[0].text); /* it may quote what was written */
	pthread_mutex_unlock(&lock);
}

void last_error_show(uid_t uid, struct ap_buf *out)
{
	pthread_mutex_lock(&lock);
	unsigned place = place_of(uid);
	if (place < n_users)
		ap_buf_printf(out, "%s\n", users[place].text);
	pthread_mutex_unlock(&lock);
}
