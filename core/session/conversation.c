/* The conversation that a program is in, by the id that the program itself knows it by: chosen by
 * us or by the program, gone on with by the next start, forgotten. Knows what the profile says of
 * it, and the program's own files; not whose conversation it is.
 *
 * Ids and files are the program's making: an id becomes a word of a command line, and is taken only
 * if it can be nothing else; of files a bounded part is read. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "driver.h"
#include "file.h"

#define RECORD	      "conversation" /* of the session: "SINCE ID FORGOTTEN", - for none */
#define HEAD_MAX      (16 << 10)     /* bytes read of a file */
#define TAIL_MAX      (256 << 10)    /* bytes read of a log */
#define CANDIDATES    16	     /* files read, the newest */
#define NAMES_MAX     200000	     /* names looked at in one search */
#define COPY_SIZE_MAX (256LL << 20)  /* bytes of a file that is copied */

bool session_conversation_valid(const char *id)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._:-";
	size_t len = strnlen(id, SESSION_CONVERSATION_MAX);
	return len > 0 && len < SESSION_CONVERSATION_MAX && *id != '-' && *id != '.' &&
	       strspn(id, allowed) == len;
}

static bool has_word(const struct profile_words *words, const char *word)
{
	for (unsigned i = 0; i < words->n; i++) {
		if (strcmp(words->at[i], word) == 0)
			return true;
	}
	return false;
}

bool session_resumes(const struct session_host *host)
{
	const struct profile_values *values = profile_values(host->profile);
	if (host->driver->converses)
		return true;
	if (values->resume.n == 0)
		return false;
	for (const char *const *word = host->argv + 1; host->argv[0] && *word; word++) {
		if (has_word(&values->own_conversation, *word) ||
		    (**word == '-' && (has_word(&values->new_conversation, *word) ||
				       has_word(&values->resume, *word))))
			return false;
	}
	return true;
}

/* --- the record for the next daemon --- */

/* Now, as file systems stamp files. */
static int64_t now_of_files(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	return now.tv_sec * AP_SECOND + now.tv_nsec;
}

static void record(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_buf_printf(&path, "%s/" RECORD, session->dir);
	pthread_mutex_lock(&session->lock);
	ap_buf_printf(&text, "%" PRId64 " %s %s\n", session->conversation_since_ns,
		      *session->conversation ? session->conversation : "-",
		      *session->forgotten ? session->forgotten : "-");
	pthread_mutex_unlock(&session->lock);
	if (!path.failed && !text.failed) /* fails on a full disk */
		(void)file_replace(ap_buf_text(&path), ap_buf_text(&text), text.len, NULL);
}

void conversation_adopt(struct session *session)
{
	char line[2 * SESSION_CONVERSATION_MAX + 32] = "";
	char id[SESSION_CONVERSATION_MAX], forgotten[SESSION_CONVERSATION_MAX];
	int64_t since;
	if (!session_resumes(session->host) ||
	    file_read_line(session->dir, RECORD, line, sizeof line) < 0 ||
	    sscanf(line, "%" SCNd64 " %127s %127s", &since, id, forgotten) != 3)
		return;
	pthread_mutex_lock(&session->lock);
	session->conversation_since_ns = since;
	if (session_conversation_valid(id))
		strcpy(session->conversation, id);
	if (session_conversation_valid(forgotten))
		strcpy(session->forgotten, forgotten);
	pthread_mutex_unlock(&session->lock);
}

/* --- files of the program --- */

struct found {
	char *path; /* owned */
	int64_t appeared_ns, changed_ns;
};

/* Files that a pattern of paths matches: those that were changed last, or that appeared first. */
struct search {
	int64_t since_ns; /* that have appeared since */
	bool first;
	struct found at[CANDIDATES];
	unsigned n, max, n_names;
};

static void search_fini(struct search *search)
{
	for (unsigned i = 0; i < search->n; i++)
		free(search->at[i].path);
}

static int64_t ns_of(struct statx_timestamp time)
{
	return time.tv_sec * AP_SECOND + time.tv_nsec;
}

static bool comes_before(const struct search *search, const struct found *a, const struct found *b)
{
	return search->first ? a->appeared_ns < b->appeared_ns : a->changed_ns > b->changed_ns;
}

static void take_file(struct search *search, const char *path)
{
	struct statx stat;
	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &stat) <
		    0 ||
	    !S_ISREG(stat.stx_mode))
		return;
	bool born = stat.stx_mask & STATX_BTIME; /* not every file system knows that */
	struct found found = {.changed_ns = ns_of(stat.stx_mtime),
			      .appeared_ns = ns_of(born ? stat.stx_btime : stat.stx_mtime)};
	if (found.appeared_ns < search->since_ns)
		return;
	unsigned place = search->n;
	while (place > 0 && comes_before(search, &found, &search->at[place - 1]))
		place--;
	if (place == search->max || !(found.path = strdup(path)))
		return;
	if (search->n == search->max)
		free(search->at[--search->n].path);
	memmove(&search->at[place + 1], &search->at[place],
		(search->n - place) * sizeof *search->at);
	search->at[place] = found;
	search->n++;
}

static void walk(struct search *search, const struct ap_buf *dir, const char *pattern);

/* Goes on with one name in a directory; `rest`: of the pattern, behind its component. */
static void enter(struct search *search, const struct ap_buf *dir, const char *name, size_t len,
		  const char *rest)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/%.*s", dir->len ? dir->data : "", (int)len, name);
	if (path.failed)
		return;
	if (*rest)
		walk(search, &path, rest);
	else
		take_file(search, ap_buf_text(&path));
}

/* Searches below a directory, whose path has no slash at its end. A component without wildcards, or
 * that is there as it stands, is a name. */
static void walk(struct search *search, const struct ap_buf *dir, const char *pattern)
{
	pattern += strspn(pattern, "/");
	size_t len = strcspn(pattern, "/");
	const char *rest = pattern + len;
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf component = {0};
	ap_buf_add(&component, pattern, len);
	ap_buf_printf(&path, "%s/%s", dir->len ? dir->data : "", ap_buf_text(&component));
	if (path.failed || component.failed || len == 0)
		return;
	if (!strpbrk(component.data, "*?[") || access(path.data, F_OK) == 0) {
		enter(search, dir, pattern, len, rest);
		return;
	}
	int fd = open(dir->len ? dir->data : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
	DIR *names = fd >= 0 ? fdopendir(fd) : NULL;
	if (!names) {
		if (fd >= 0)
			close(fd);
		return;
	}
	struct dirent *entry;
	while (search->n_names < NAMES_MAX && (entry = readdir(names))) {
		search->n_names++;
		if (*rest && entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)
			continue; /* also a link: it may lead round and round */
		if (fnmatch(component.data, entry->d_name, FNM_PERIOD) == 0)
			enter(search, dir, entry->d_name, strlen(entry->d_name), rest);
	}
	closedir(names);
}

/* Expands the variables of a pattern of paths, and searches by it. */
static void search_by(struct session *session, const char *pattern, const char *conversation,
		      struct search *search)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	const struct ap_buf root = {0};
	expand_with(session, pattern, conversation, &path);
	if (!path.failed && path.len > 0 && path.data[0] == '/')
		walk(search, &root, ap_buf_text(&path));
}

/* Copies the file at `from` to the path. The file there, if any, is an older copy. */
static bool bring(const char *from, const char *to)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	AP_CLEANUP_BUF struct ap_buf temporary = {0};
	struct stat stat;
	ap_buf_add(&dir, to, (size_t)(strrchr(to, '/') - to));
	ap_buf_printf(&temporary, "%s.agentpool", to);
	if (dir.failed || temporary.failed || lstat(from, &stat) < 0 ||
	    stat.st_size > COPY_SIZE_MAX)
		return false;
	(void)unlink(ap_buf_text(&temporary));
	bool copied = file_make_dirs(ap_buf_text(&dir), NULL) == 0 &&
		      file_copy(from, ap_buf_text(&temporary), true, NULL) == 0 &&
		      rename(ap_buf_text(&temporary), to) == 0;
	if (!copied)
		(void)unlink(ap_buf_text(&temporary));
	return copied;
}

/* Whether the program has the conversation, as far as the profile can tell; appends the path of its
 * file. Brings the file to where a program in this worktree looks for it. */
static bool is_kept(struct session *session, const char *conversation, struct ap_buf *ret_path)
{
	const struct profile_values *values = profile_values(session->host->profile);
	struct search here = {.max = 1}, elsewhere = {.max = 1};
	if (!*values->conversation_file)
		return true;
	search_by(session, values->conversation_file, conversation, &here);
	if (*values->conversation_from)
		search_by(session, values->conversation_from, conversation, &elsewhere);
	bool newer = elsewhere.n && (!here.n || elsewhere.at[0].changed_ns > here.at[0].changed_ns);
	bool kept = here.n > 0;
	if (newer) {
		expand_with(session, values->conversation_file, conversation, ret_path);
		kept = !ret_path->failed && bring(elsewhere.at[0].path, ap_buf_text(ret_path));
	} else if (kept) {
		ap_buf_adds(ret_path, here.at[0].path);
	}
	search_fini(&here);
	search_fini(&elsewhere);
	return kept;
}

bool conversation_file(struct session *session, const char *conversation, struct ap_buf *ret_path)
{
	const struct profile_values *values = profile_values(session->host->profile);
	struct search here = {.max = 1};
	if (!*values->conversation_file || !session_conversation_valid(conversation))
		return false;
	search_by(session, values->conversation_file, conversation, &here);
	if (here.n > 0)
		ap_buf_adds(ret_path, here.at[0].path);
	search_fini(&here);
	return ret_path->len > 0;
}

bool session_has_conversation(struct session *session, const char *conversation)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	return session_resumes(session->host) && session_conversation_valid(conversation) &&
	       is_kept(session, conversation, &path);
}

/* --- the start of a program --- */

void session_converse(struct session *session, const char *conversation)
{
	pthread_mutex_lock(&session->lock);
	session->next_conversation[0] = '\0';
	if (session_conversation_valid(conversation))
		strcpy(session->next_conversation, conversation);
	pthread_mutex_unlock(&session->lock);
}

/* A random UUID, version 4. */
static bool choose(char ret[SESSION_CONVERSATION_MAX])
{
	unsigned char b[16];
	if (getrandom(b, sizeof b, 0) != sizeof b)
		return false;
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	snprintf(ret, SESSION_CONVERSATION_MAX,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		 b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		 b[15]);
	return true;
}

/* Notes which conversation the program that starts now is in. */
static void begin(struct session *session, const char *next)
{
	const struct profile_values *values = profile_values(session->host->profile);
	char id[SESSION_CONVERSATION_MAX] = "";
	if (!*next && values->new_conversation.n > 0 && !choose(id))
		id[0] = '\0';
	pthread_mutex_lock(&session->lock);
	if (strcmp(session->conversation, next) != 0 && *session->conversation)
		strcpy(session->forgotten, session->conversation);
	if (strcmp(session->forgotten, next) == 0)
		session->forgotten[0] = '\0';
	strcpy(session->conversation, *next ? next : id);
	session->conversation_since_ns = now_of_files();
	session->resumed = *next;
	session->shows_conversation = false;
	session->next_conversation[0] = '\0';
	tell_changed(session);
	pthread_mutex_unlock(&session->lock);
}

static void add_words(struct session *session, const struct profile_words *words, const char *id,
		      const char *file, struct ap_words *ret)
{
	static const char variable[] = "${CONVERSATION_FILE}";
	for (unsigned i = 0; i < words->n; i++) {
		struct ap_buf word = {0};
		if (strcmp(words->at[i], variable) == 0)
			ap_buf_adds(&word, file);
		else
			expand_with(session, words->at[i], id, &word);
		ap_words_take(ret, &word);
	}
}

void conversation_begin(struct session *session, struct ap_words *ret)
{
	const struct profile_values *values = profile_values(session->host->profile);
	char next[SESSION_CONVERSATION_MAX], id[SESSION_CONVERSATION_MAX];
	AP_CLEANUP_BUF struct ap_buf file = {0};
	if (!session_resumes(session->host))
		return;
	pthread_mutex_lock(&session->lock);
	strcpy(next, session->next_conversation);
	pthread_mutex_unlock(&session->lock);
	if (*next && !is_kept(session, next, &file)) {
		session->callbacks->note(session->owner, SESSION_CONVERSATION_GONE, next);
		next[0] = '\0';
	}
	begin(session, next);
	record(session);
	if (session_conversation(session, id))
		add_words(session, *next ? &values->resume : &values->new_conversation, id,
			  ap_buf_text(&file), ret);
}

/* --- which it is in --- */

bool session_conversation(struct session *session, char ret[SESSION_CONVERSATION_MAX])
{
	pthread_mutex_lock(&session->lock);
	strcpy(ret, session->conversation);
	pthread_mutex_unlock(&session->lock);
	return *ret;
}

void session_forget_conversation(struct session *session)
{
	if (!session_resumes(session->host))
		return;
	pthread_mutex_lock(&session->lock);
	if (*session->conversation)
		strcpy(session->forgotten, session->conversation);
	session->conversation[0] = '\0';
	session->conversation_since_ns = now_of_files();
	tell_changed(session);
	pthread_mutex_unlock(&session->lock);
	record(session);
	session->callbacks->conversation(session->owner, "");
}

void conversation_not_forgotten(struct session *session)
{
	char id[SESSION_CONVERSATION_MAX];
	pthread_mutex_lock(&session->lock);
	bool restored = !*session->conversation && *session->forgotten;
	if (restored) {
		strcpy(session->conversation, session->forgotten);
		session->forgotten[0] = '\0';
	}
	strcpy(id, session->conversation);
	pthread_mutex_unlock(&session->lock);
	if (!restored)
		return;
	record(session);
	session->callbacks->conversation(session->owner, id);
}

/* Whether what was found is a conversation of this worktree, and not the one that was forgotten:
 * the program may still write to that. */
static bool is_ours(struct session *session, const struct profile_found *found)
{
	pthread_mutex_lock(&session->lock);
	bool forgotten = strcmp(session->forgotten, ap_buf_text(&found->id)) == 0;
	pthread_mutex_unlock(&session->lock);
	return !forgotten && strcmp(ap_buf_text(&found->cwd), session->cwd) == 0 &&
	       !found->id.failed && session_conversation_valid(ap_buf_text(&found->id));
}

/* Whether a file is a conversation of this worktree, by its path and first bytes. */
static bool judge_file(struct session *session, const char *path, struct profile_found *ret)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	AP_CLEANUP_CLOSE int fd = file_open(path, O_RDONLY | O_NOFOLLOW, 0);
	ap_buf_printf(&text, "%s\n", path);
	size_t before = text.len;
	if (fd < 0 || text.failed || !ap_buf_reserve(&text, HEAD_MAX))
		return false;
	ssize_t n = pread(fd, text.data + before, HEAD_MAX, 0);
	return n > 0 &&
	       profile_conversation(session->host->profile, false, text.data, before + (size_t)n,
				    ret) &&
	       is_ours(session, ret);
}

/* ns of the wall clock of a time such as 2026-11-28T10:24:04.979Z; 0: it is none. */
static int64_t time_of(const char *text)
{
	struct tm utc = {.tm_isdst = 0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
	int64_t ns = 0, digit = AP_SECOND / 10;
	if (!rest)
		return 0;
	if (*rest == '.') {
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, digit /= 10)
			ns += (*rest - '0') * digit;
	}
	return strcmp(rest, "Z") == 0 ? timegm(&utc) * AP_SECOND + ns : 0;
}

/* Finds the first conversation of this worktree that a log says to have begun since. */
static bool judge_log(struct session *session, const char *path, int64_t since_ns,
		      struct profile_found *ret)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	AP_CLEANUP_CLOSE int fd = file_open(path, O_RDONLY | O_NOFOLLOW, 0);
	off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
	if (end <= 0 || !ap_buf_reserve(&text, TAIL_MAX))
		return false;
	ssize_t n = pread(fd, text.data, TAIL_MAX, end > TAIL_MAX ? end - TAIL_MAX : 0);
	for (ssize_t at = 0; at < n;) {
		const char *line = text.data + at;
		const char *newline = memchr(line, '\n', (size_t)(n - at));
		size_t len = newline ? (size_t)(newline - line) : (size_t)(n - at);
		if (profile_conversation(session->host->profile, true, line, len, ret) &&
		    is_ours(session, ret) &&
		    time_of(ap_buf_text(&ret->time)) >= since_ns / AP_MS * AP_MS)
			return true;
		profile_found_fini(ret);
		at += (ssize_t)len + 1;
	}
	return false;
}

/* Takes an id; `since_ns`: not if the program was started, or told to forget, after that; 0:
 * always. */
static void take_id(struct session *session, const char *id, int64_t since_ns)
{
	pthread_mutex_lock(&session->lock);
	bool late = since_ns != 0 && session->conversation_since_ns != since_ns;
	bool news = !late && !session->closed && strcmp(session->forgotten, id) != 0 &&
		    strcmp(session->conversation, id) != 0;
	if (news) {
		strcpy(session->conversation, id);
		tell_changed(session);
	}
	pthread_mutex_unlock(&session->lock);
	if (!news)
		return;
	record(session);
	session->callbacks->conversation(session->owner, id);
}

void conversation_told(struct session *session, const char *id)
{
	if (session_conversation_valid(id))
		take_id(session, id, 0);
}

int session_resume(struct session *session, const char *conversation, int64_t limit_ns)
{
	if (!session->driver->resume)
		return -EOPNOTSUPP;
	return session->driver->resume(session, conversation, limit_ns);
}

/* Has the files judged that the pattern finds, in the order of the search. */
static void learn_by(struct session *session, const char *pattern, bool is_log, int64_t since_ns)
{
	bool follows = profile_values(session->host->profile)->follows_conversation;
	struct search search = {
		.max = CANDIDATES, .since_ns = is_log ? 0 : since_ns, .first = !is_log && !follows};
	bool found = false;
	search_by(session, pattern, "", &search);
	for (unsigned i = 0; i < search.n && !found; i++) {
		struct profile_found it = {.id = {0}};
		const char *path = search.at[i].path;
		found = is_log ? judge_log(session, path, since_ns, &it)
			       : judge_file(session, path, &it);
		if (found)
			take_id(session, ap_buf_text(&it.id), since_ns);
		profile_found_fini(&it);
	}
	search_fini(&search);
}

void session_learn_conversation(struct session *session)
{
	const struct profile_values *values = profile_values(session->host->profile);
	if (!session_resumes(session->host))
		return;
	pthread_mutex_lock(&session->lock);
	bool known = *session->conversation;
	int64_t since_ns = session->conversation_since_ns;
	pthread_mutex_unlock(&session->lock);
	if (*values->conversations && (!known || values->follows_conversation))
		learn_by(session, values->conversations, false, since_ns);
	if (*values->conversation_logs && !known)
		learn_by(session, values->conversation_logs, true, since_ns);
}
