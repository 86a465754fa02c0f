#include "tmux_server.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "process_tree.h"

#define RECORD	     "tmux.pid" /* beside the socket */
#define END_MS	     3000	/* between asking it to end and killing it */
#define REACH_LIMIT  AP_SECOND
#define REACH_MS     5	  /* how often to check whether the socket is there again */
#define KILLED_LIMIT 3000 /* ms that the kernel gets to end it */

/* The directory of the socket, which the record is in too. */
static void dir_of(const char *socket, char *ret, size_t size)
{
	const char *slash = strrchr(socket, '/');
	snprintf(ret, size, "%.*s", slash ? (int)(slash - socket) : 1, slash ? socket : ".");
}

static void record_path(const char *socket, char *ret, size_t size)
{
	char dir[sizeof((struct sockaddr_un *)0)->sun_path];
	dir_of(socket, dir, sizeof dir);
	snprintf(ret, size, "%s/" RECORD, dir);
}

/* The process that listens at the socket. 0: nobody does, or there is no socket; -1: that cannot be
 * told now. */
static pid_t listener(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t size = sizeof peer;
	AP_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return errno == EAGAIN ? -1 : 0; /* its backlog is full just now */
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ? -1 : peer.pid;
}

/* Whether a process is a server that was started for that socket: its command line is that of the
 * client that started it. */
static bool is_for(pid_t pid, const char *socket)
{
	char path[64], name[32] = "";
	snprintf(path, sizeof path, "/proc/%d", (int)pid);
	(void)file_read_line(path, "comm", name, sizeof name);
	return strcmp(name, "tmux: server") == 0 && process_has_word(pid, socket);
}

int tmux_server_open(const struct tmux_server *server)
{
	int fd = server->pid > 1 ? pidfd_open(server->pid, 0) : -1;
	struct pollfd over = {.fd = fd, .events = POLLIN};
	bool lives = fd >= 0 && process_start_time(server->pid) == server->start &&
		     poll(&over, 1, 0) == 0;
	if (fd >= 0 && !lives)
		close(fd);
	return lives ? fd : -1;
}

bool tmux_server_lives(const struct tmux_server *server)
{
	AP_CLEANUP_CLOSE int fd = tmux_server_open(server);
	return fd >= 0;
}

bool tmux_server_stopped(const struct tmux_server *server)
{
	char path[64], line[512] = "";
	snprintf(path, sizeof path, "/proc/%d", (int)server->pid);
	(void)file_read_line(path, "stat", line, sizeof line);
	const char *name_end = strrchr(line, ')');
	return name_end && (name_end[2] == 'T' || name_end[2] == 't');
}

struct tmux_server tmux_server_find(const char *socket)
{
	char dir[sizeof((struct sockaddr_un *)0)->sun_path], line[64];
	struct tmux_server server = {.pid = 0};
	dir_of(socket, dir, sizeof dir);
	if (file_read_line(dir, RECORD, line, sizeof line) == 0 &&
	    sscanf(line, "%d %" SCNu64, &server.pid, &server.start) == 2 &&
	    tmux_server_lives(&server))
		return server;
	server.pid = listener(socket);
	if (server.pid <= 1 || !is_for(server.pid, socket))
		return (struct tmux_server){.pid = 0};
	server.start = process_start_time(server.pid);
	return server;
}

int tmux_server_record(const char *socket, const struct tmux_server *server, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char path[256];
	record_path(socket, path, sizeof path);
	ap_buf_printf(&text, "%d %" PRIu64 "\n", (int)server->pid, server->start);
	return file_write(path, ap_buf_text(&text), text.len, err);
}

bool tmux_server_reached(const struct tmux_server *server, const char *socket)
{
	pid_t pid = listener(socket);
	return pid == server->pid || pid == -1;
}

void tmux_server_restore(const struct tmux_server *server)
{
	AP_CLEANUP_CLOSE int fd = tmux_server_open(server);
	if (fd >= 0)
		(void)pidfd_send_signal(fd, SIGUSR1, NULL, 0); /* fails when it has ended now */
}

int tmux_server_reach(const struct tmux_server *server, const char *socket, struct ap_err *err)
{
	int64_t deadline = ap_clock_ns() + REACH_LIMIT;
	if (tmux_server_reached(server, socket))
		return 0;
	tmux_server_restore(server);
	while (!tmux_server_reached(server, socket)) {
		if (ap_clock_ns() > deadline)
			return ap_err_set(err, -ETIMEDOUT,
					  "the tmux server (process %d) does not make its socket "
					  "%s anew: have it go on, or end it",
					  (int)server->pid, socket);
		poll(NULL, 0, REACH_MS);
	}
	return 0;
}

void tmux_server_end(const struct tmux_server *server, const char *socket)
{
	char record[256];
	record_path(socket, record, sizeof record);
	AP_CLEANUP_CLOSE int fd = tmux_server_open(server);
	struct pollfd over = {.fd = fd, .events = POLLIN};
	if (fd >= 0) {
		(void)pidfd_send_signal(fd, SIGTERM, NULL, 0); /* fails when it has ended now */
		(void)pidfd_send_signal(fd, SIGCONT, NULL, 0);
	}
	/* a server whose control client died without reading its last answer waits for that client
	 * for ever */
	if (fd >= 0 && poll(&over, 1, END_MS) == 0) {
		(void)pidfd_send_signal(fd, SIGKILL, NULL, 0);
		(void)poll(&over, 1, KILLED_LIMIT);
	}
	unlink(socket);
	unlink(record);
}
