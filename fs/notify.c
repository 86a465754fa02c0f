#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cleanup.h"

#define SEND_LIMIT_S 10

static struct sockaddr_un manager = {.sun_family = AF_UNIX};
static socklen_t manager_len; /* 0: there is none */

int notify_open(const char *address)
{
	size_t len = address ? strlen(address) : 0;
	manager_len = 0;
	if (!address)
		return 0;
	if ((address[0] != '/' && address[0] != '@') || len < 2 || len >= sizeof manager.sun_path)
		return -EINVAL;
	strcpy(manager.sun_path, address);
	if (address[0] == '@')
		manager.sun_path[0] = '\0'; /* and its end is that of the address */
	manager_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	return 0;
}

int notify_send(const char *lines, struct ap_err *err)
{
	if (manager_len == 0)
		return 0;
	AP_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct timeval limit = {.tv_sec = SEND_LIMIT_S};
	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
	    sendto(fd, lines, strlen(lines), MSG_NOSIGNAL, (const struct sockaddr *)&manager,
		   manager_len) >= 0)
		return 0;
	return ap_err_errno(err, -errno, "cannot tell the service manager %s", lines);
}
