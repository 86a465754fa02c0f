#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../../fs/notify.h"

static char dir[] = "/tmp/agentpool-notify-XXXXXX"; /* a socket's path is short */
static char path[64];

static int make_dir(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/manager", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)unlink(path);
	return rmdir(dir);
}

/* A manager that listens at an address as NOTIFY_SOCKET has it. */
static int listen_at(const char *address)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address));
	strcpy(at.sun_path, address);
	if (address[0] == '@')
		at.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&at, len), 0);
	return fd;
}

static void assert_heard(int fd, const char *text)
{
	char heard[64];
	ssize_t n = recv(fd, heard, sizeof heard - 1, MSG_DONTWAIT);
	heard[n > 0 ? n : 0] = '\0';
	assert_string_equal(heard, text);
}

static void told_at(const char *address)
{
	struct ap_err err;
	int fd = listen_at(address);
	assert_int_equal(notify_open(address), 0);
	assert_int_equal(notify_send("READY=1", &err), 0);
	assert_int_equal(notify_send("STOPPING=1", &err), 0);
	assert_heard(fd, "READY=1");
	assert_heard(fd, "STOPPING=1");
	close(fd);
}

static void by_path(void **state)
{
	told_at(path);
}

static void by_name(void **state)
{
	char name[80];
	snprintf(name, sizeof name, "@%s", path);
	told_at(name);
}

static void nobody(void **state)
{
	struct ap_err err;
	assert_int_equal(notify_open(path), 0);
	assert_int_equal(notify_open(NULL), 0);
	assert_int_equal(notify_send("READY=1", &err), 0);
}

static void no_address(void **state)
{
	struct ap_err err;
	char longer[200];
	memset(longer, 'x', sizeof longer - 1);
	longer[0] = '/';
	longer[sizeof longer - 1] = '\0';
	const char *const addresses[] = {"", "/", "@", "manager", "vsock:2:1", longer};
	for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		assert_int_equal(notify_open(addresses[i]), -EINVAL);
		assert_int_equal(notify_send("READY=1", &err), 0);
	}
}

static void gone(void **state)
{
	struct ap_err err;
	(void)unlink(path);
	assert_int_equal(notify_open(path), 0);
	assert_int_equal(notify_send("READY=1", &err), -ENOENT);
	assert_string_equal(err.text, "cannot tell the service manager READY=1: No such file or "
				      "directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a manager is told at the path of its socket, a message a state", by_path),
		IT("a manager is told at a name in the abstract namespace", by_name),
		IT("without a manager nobody is told", nobody),
		IT("what is no address is refused, and nobody is told", no_address),
		IT("a manager that has gone is an error, with its sentence", gone),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
