/* Writes to a file that takes lines, done at once or answered later, held against a simple account
 * of what a line is. Byte 0 chooses which; then comes one write after the other, as a byte that
 * says how often its text is repeated, and the text with a NUL behind it; in it \1 stands for NUL.
 * The first byte of a line says how it fares: `r` is refused, `l` and `f` are answered later, well
 * or badly, `n` and `g` likewise before the call returns. */
#include "fuzz.h"

#include <errno.h>
#include <limits.h>

#include "../../fs/writing.c"

#define WRITE_MAX 16384

struct parked {
	fuse_req_t req;
	void (*data_free)(void *);
	void *data;
	unsigned n_refs;
};

struct ap_request {
	ap_request_done *done;
	void *data;
	unsigned n_refs;
	struct ap_err err;
};

static struct open_files files;
static struct open_file *file;
static struct ap_buf seen; /* the lines that had their effect, and those that were refused */
static struct ap_request *waiting; /* submitted, not answered */
static int answer;
static unsigned n_replies, n_requests, n_parked;
static ssize_t replied; /* bytes, or negative errno */

/* --- what the file stands on --- */

static int reply(ssize_t what)
{
	n_replies++;
	replied = what;
	return 0;
}

int fuse_reply_err(fuse_req_t req, int error)
{
	HOLDS(error > 0);
	return reply(-error);
}

int fuse_reply_write(fuse_req_t req, size_t n)
{
	return reply((ssize_t)n);
}

const struct fuse_ctx *fuse_req_ctx(fuse_req_t req)
{
	static const struct fuse_ctx ctx = {.uid = 1000, .pid = 1};
	return &ctx;
}

void last_error_set(uid_t uid, const char *text)
{
	HOLDS(*text);
}

struct open_file *open_file_find(struct open_files *of, uint64_t fh)
{
	return file;
}

void file_ref(struct open_file *of)
{
	atomic_fetch_add(&of->n_refs, 1);
}

void file_unref(void *of)
{
	HOLDS(atomic_fetch_sub(&((struct open_file *)of)->n_refs, 1) > 1);
}

void request_over(struct open_file *of, struct ap_request *request)
{
	HOLDS(of->request == request);
	of->request = NULL;
	ap_request_free(request);
}

void hold(struct open_file *of, fuse_req_t req, const char *text, size_t len)
{
	HOLDS(false);
}

struct parked *parked_new(struct parked_set *set, fuse_req_t req, parked_interrupted *interrupted,
			  void (*data_free)(void *data), void *data)
{
	struct parked *parked = malloc(sizeof *parked);
	HOLDS(parked);
	*parked = (struct parked){req, data_free, data, 2};
	n_parked++;
	return parked;
}

void parked_unref(struct parked *parked)
{
	if (--parked->n_refs > 0)
		return;
	parked->data_free(parked->data);
	free(parked);
	n_parked--;
}

fuse_req_t parked_claim(struct parked *parked)
{
	parked_unref(parked);
	return (fuse_req_t)&files; /* never looked into */
}

struct ap_request *ap_request_new(ap_request_done *done, void *data)
{
	struct ap_request *request = calloc(1, sizeof *request);
	HOLDS(request);
	*request = (struct ap_request){.done = done, .data = data, .n_refs = 1};
	n_requests++;
	return request;
}

void ap_request_ref(struct ap_request *request)
{
	request->n_refs++;
}

void ap_request_free(struct ap_request *request)
{
	if (--request->n_refs > 0)
		return;
	free(request);
	n_requests--;
}

const char *ap_request_why(const struct ap_request *request)
{
	return request->err.text;
}

struct ap_lease_key ap_request_lease(const struct ap_request *request)
{
	return (struct ap_lease_key){0, 0};
}

void ap_request_cancel(struct ap_pool *pool, struct ap_request *request)
{
	HOLDS(false); /* nobody interrupts */
}

void ap_pool_release_key(struct ap_pool *pool, struct ap_lease_key key)
{
	HOLDS(false);
}

int64_t ap_pool_config_number(struct ap_pool *pool, enum ap_option option)
{
	return 0;
}

int ap_agent_prompt_begin(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
			  struct ap_err *err)
{
	return 0;
}

int ap_agent_prompt_grow(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len,
			 struct ap_err *err)
{
	return 0;
}

int tree_may_write(const struct tree_row *row, const struct tree_call *call, uid_t uid)
{
	return 0;
}

void ap_agent_prompt_end(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, size_t len)
{
}

static void line_seen(const char *text)
{
	HOLDS(strlen(text) <= LINE_MAX_LEN && text[0] != '#' && !strchr(text, '\n'));
	ap_buf_printf(&seen, "%s\n", text);
}

static int on_line(const struct tree_call *call, char *text)
{
	line_seen(text);
	return *text == 'r' || *text == 'f' || *text == 'g' ? -EINVAL : 0;
}

static int on_submit(const struct tree_call *call, char *text, struct ap_request *request)
{
	line_seen(text);
	HOLDS(!waiting);
	snprintf(request->err.text, sizeof request->err.text, "refused later");
	if (*text == 'r')
		return -EINVAL;
	if (*text == 'n' || *text == 'g')
		request->done(request, *text == 'g' ? -EINVAL : 0, request->data);
	else if (*text == 'l' || *text == 'f')
		waiting = request;
	else
		return 1;
	answer = *text == 'f' ? -EINVAL : 0;
	return 0;
}

/* --- the account --- */

struct account {
	struct ap_buf pending, refused, seen;
	size_t left; /* of a block that was taken in part: written again, it is one too */
	bool parks;
};

/* Whether it is taken; as for the line's own length it is without its newline. */
static bool account_line(struct account *account, const char *text, size_t len)
{
	if (len > LINE_MAX_LEN || memchr(text, '\0', len))
		return false;
	if (len > 0 && text[0] == '#')
		return true;
	ap_buf_add(&account->seen, text, len);
	ap_buf_adds(&account->seen, "\n");
	return len == 0 || !strchr("rfg", text[0]);
}

/* The bytes of whole lines that were taken, up to the first that was not, or 512 lines; what comes
 * behind one that is answered later is counted anew: others had their turn. */
static size_t account_lines(struct account *account, const char *text, size_t whole,
			    bool *ret_refused)
{
	size_t done = 0;
	*ret_refused = false;
	for (unsigned n = 0; done < whole && n < 512; n++) {
		size_t end = done;
		while (end < whole && text[end] != '\n')
			end++;
		if (!account_line(account, text + done, end - done)) {
			*ret_refused = true;
			return done;
		}
		if (account->parks && end > done && text[done] == 'l')
			n = UINT_MAX;
		done = end < whole ? end + 1 : end;
	}
	return done;
}

/* What the writer of these bytes is told. */
static ssize_t account_write(struct account *account, const char *data, size_t size)
{
	size_t before = account->pending.len, whole;
	bool refused, again = account->parks && size > 0 && account->refused.len == size &&
			      memcmp(account->refused.data, data, size) == 0;
	account->refused.len = 0;
	if (again)
		return -EINVAL;
	bool block = size >= 4096 || (account->left > 0 && size == account->left);
	account->left = 0;
	ap_buf_add(&account->pending, data, size);
	whole = account->pending.len;
	while (block && whole > 0 && account->pending.data[whole - 1] != '\n')
		whole--;
	if (account->pending.len - whole > LINE_MAX_LEN) {
		account->pending.len = 0;
		return -EINVAL;
	}
	size_t done = account_lines(account, ap_buf_text(&account->pending), whole, &refused);
	if (done == whole) {
		ap_buf_drop(&account->pending, whole);
		return (ssize_t)size;
	}
	account->pending.len = 0; /* the writer has the rest */
	if (done > before) {
		account->left = block ? size - (done - before) : 0;
		return (ssize_t)(done - before);
	}
	HOLDS(refused);
	if (account->parks)
		ap_buf_add(&account->refused, data, size);
	return -EINVAL;
}

/* --- one write after the other --- */

static size_t next_write(struct fuzz_input *input, char *ret)
{
	size_t times = 1 + fuzz_byte(input) % 128u, n = 0;
	char *text = fuzz_text(input);
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i++)
		text[i] = text[i] == 1 ? '\0' : text[i];
	for (size_t i = 0; i < times && n + len <= WRITE_MAX; i++) {
		memcpy(ret + n, text, len);
		n += len;
	}
	free(text);
	return n;
}

static void write_holds(struct account *account, const char *data, size_t size)
{
	ssize_t expected = account_write(account, data, size);
	n_replies = 0;
	open_file_write(&files, (fuse_req_t)&files, data, size, &(struct fuse_file_info){0});
	while (waiting) {
		struct ap_request *request = waiting;
		HOLDS(n_replies == 0);
		waiting = NULL;
		request->done(request, answer, request->data);
	}
	HOLDS(n_replies == 1);
	HOLDS(replied == expected);
	HOLDS(size == 0 || replied < 0 || (replied > 0 && (size_t)replied <= size));
	HOLDS(seen.len == account->seen.len);
	HOLDS(memcmp(ap_buf_text(&seen), ap_buf_text(&account->seen), seen.len) == 0);
	HOLDS(atomic_load(&file->n_refs) == 1 && n_requests == 0 && n_parked == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct tree_row done_at_once = {.name = "ctl", .line = on_line};
	static const struct tree_row answered_later = {.name = "release", .submit = on_submit};
	static char text[WRITE_MAX];
	struct fuzz_input input = {data, size};
	struct account account = {.parks = fuzz_byte(&input) & 1};
	struct open_file mine = {.files = &files,
				 .row = account.parks ? &answered_later : &done_at_once};
	atomic_init(&mine.n_refs, 1);
	file = &mine;
	pthread_mutex_init(&files.lock, NULL);
	while (input.left > 0) {
		size_t n = next_write(&input, text);
		char *copy = fuzz_copy(text, n);
		write_holds(&account, copy, n);
		free(copy);
	}
	pthread_mutex_destroy(&files.lock);
	ap_buf_fini(&mine.pending);
	writing_free(mine.writing);
	ap_buf_fini(&account.pending);
	ap_buf_fini(&account.refused);
	ap_buf_fini(&account.seen);
	ap_buf_fini(&seen);
	return 0;
}
