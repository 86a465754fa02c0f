/* What the sources of an open file share. The lowest layer is the table (open_table.c), the highest
 * is open and close (open_file.c); reading.c, following.c, polling.c, writing.c and holding.c are
 * between them. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "list.h"
#include "open_file.h"
#include "snapshot.h"

enum text_state {
	TEXT_NONE,   /* no text was requested yet */
	TEXT_COMING, /* readers wait */
	TEXT_READY,
	TEXT_FAILED, /* text_error */
};

/* A write that is parked while its lines are submitted one after the other. */
struct writing {
	struct parked *parked; /* NULL: none is under way */
	struct ap_buf work;
	size_t work_from; /* bytes of it that came with earlier writes */
	size_t write_size;
	size_t done;	  /* bytes whose commands have had their effect */
	size_t line_len;  /* of the line under way */
	bool cut;	  /* the last write was accepted only in part */
	bool is_block;	  /* the write is a program's full buffer, or the rest of one */
	bool submitting;  /* guarded by files->lock: submit() has not returned yet */
	bool answered;	  /* likewise: the answer came before submit() returned */
	bool interrupted; /* likewise: the writer was interrupted */
	int answer;
	int refused_error;
	size_t refused_len; /* of the last write if it was refused whole; else 0 */
	uint64_t refused_hash;
};

/* The position of a reader in kept text. Guarded by files->lock. */
struct place {
	off_t shift;	   /* dropped bytes: the text's offset less the reader's */
	off_t next_offset; /* the reader's, behind the last piece */
	off_t end;	   /* where the text ended when the reader began */
	bool end_told;	   /* the reader has got that end: a read of 0 bytes */
};

/* Kept small, as ten thousand waiters have one each: rare members are allocated when needed. */
struct open_file {
	atomic_uint n_refs;	    /* of the table; of each request and parked request under way */
	enum text_state text_state; /* guarded by files->lock */
	struct open_files *files;
	const struct tree_row *row;
	uint64_t ino; /* of the node, packed */
	uint64_t fh;
	/* pins the agent; `err` is NULL, see file_call(); uid and tid are those of the last
	 * write */
	struct tree_call call;
	bool by_handle; /* the open file is a lease, or will be one */
	bool stream;	/* offsets mean nothing: `cursor` counts */
	bool append;	/* opened with O_APPEND */
	bool direct;	/* reads and writes bypass the kernel's page cache (direct I/O) */
	bool measures;	/* not an open file: it makes the text that the next open reads */

	/* the FUSE thread's own */
	bool taking;	       /* the pool knows that a text is being written */
	bool broken;	       /* a piece of the text was refused: the whole text is dropped */
	bool looked;	       /* a value that was read or polled: the next read may make another */
	struct ap_buf pending; /* written so far: of an unfinished line, a value or a text */
	size_t block_left;     /* of a block that was accepted in part: the program repeats it */

	/* guarded by files->lock */
	int text_error;
	bool is_first;		   /* nobody else had `snapshot` open when this file opened it */
	bool renewed;		   /* `text` is newer than `snapshot`: direct reads get it */
	bool granted;		   /* by_handle: the lease is held */
	bool closed;		   /* RELEASE has come */
	struct snapshot *snapshot; /* open; readers get its text; NULL: they get `text` */
	struct ap_buf text;
	size_t counted; /* bytes of it in files->text_bytes */
	size_t cursor;
	struct ap_list readers;	    /* struct reader */
	struct ap_request *request; /* under way, with our reference; at most one */
	struct ap_lease_key lease;  /* the last one granted through this file */

	struct place *place;	     /* owned; NULL: its text is not kept text */
	struct following *following; /* owned; NULL: it is no stream of events */
	struct polling *polling;     /* owned; set once; NULL: nobody has polled it yet */
	struct writing *writing;     /* owned; NULL: no write has submitted anything yet */
};

struct slot {
	struct open_file *file; /* NULL: it is free */
	uint32_t generation;
	uint32_t next_free; /* another free one, or n_slots: none */
};

/* What the table calls for a file: `end` when it is closed, or was not opened after all; `free`
 * when nothing of it is under way any more. */
struct open_file_ops {
	void (*end)(struct open_file *file);
	void (*free)(struct open_file *file);
};

struct open_files {
	const struct open_file_ops *ops;
	struct ap_pool *pool;
	struct parked_set *parked;
	struct snapshots *snapshots;
	struct fuse_session *session; /* NULL: open_files_serve() was not called */
	/* its holder may call the pool, which calls back with no lock held */
	pthread_mutex_t lock;
	struct ap_list followers;     /* struct following; guarded by lock */
	struct ap_list polled;	      /* struct polling with a poll handle; likewise */
	struct slot *slots;	      /* likewise */
	uint32_t n_slots, first_free; /* n_slots: none; likewise */
	size_t taking_bytes;	      /* of texts being written; the FUSE thread's own */
	atomic_size_t text_bytes;     /* of texts that were made for one open file alone */
	atomic_size_t line_bytes;     /* of lines whose write is parked */
};

/* A parked read, or an open or a getattr that waits for the text. Freed with its parked request. */
struct reader {
	struct ap_list link; /* file->readers; files->lock */
	struct open_file *file;
	struct parked *parked;
	size_t size;
	off_t offset;
	bool opens;		      /* the request is the open */
	open_file_measured *measured; /* the request is a getattr; else NULL */
	bool interrupted;	      /* perhaps before it was in the list; files->lock */
};

/* --- open_table.c --- */

void file_ref(struct open_file *file);
void file_unref(void *file); /* its type fits `data_free` of parked_new() */

static inline struct node file_node(const struct open_file *file)
{
	return node_unpack(file->ino);
}

/* The call of the file's user, with `err` for the sentence of a refusal. */
static inline struct tree_call file_call(const struct open_file *file, struct ap_err *err)
{
	struct tree_call call = file->call;
	call.err = err;
	return call;
}

/* Replies to an open that succeeds. `keep_cache`: the kernel keeps its cached pages, which may have
 * the text already. False: the client is gone, and no RELEASE will come. */
bool open_reply(struct open_file *file, fuse_req_t req, bool keep_cache);

/* Ends a file that is closed, or was not opened after all. Drops the table's reference. Any
 * thread. */
void open_file_end(struct open_file *file);

/* Cancels the file's request, if one is under way: the pool answers it with -ECANCELED. */
void request_cancel(struct open_file *file);

/* table_add() gives the file a handle, table_remove() takes it back. -ENOMEM, -ENFILE with its
 * sentence. */
int table_add(struct open_files *files, struct open_file *file, struct ap_err *err);
void table_remove(struct open_files *files, uint64_t fh);

/* The open file of a handle, or NULL. */
struct open_file *open_file_find(struct open_files *files, uint64_t fh);

/* Detaches a request that is answered or refused from the file, and drops our reference. */
void request_over(struct open_file *file, struct ap_request *request);

/* --- reading.c --- */

/* The text that direct reads get. files->lock held. */
const struct ap_buf *file_text_locked(const struct open_file *file);

/* Opens the text that the lookup has made. -ESTALE: the text is forgotten, and the kernel repeats
 * the lookup; -ENFILE: the texts are over their limit. */
int text_open(struct open_file *file);

/* Stores the text in the kernel's page cache: the kernel then sends no read for it. False: the
 * kernel did not take the text, or may have it already. */
bool text_push(struct open_file *file);

/* Reply to the request when the text has been made, or cannot be: text_open_later() to an open,
 * text_measure() to a getattr of a file that is not open. */
void text_open_later(struct open_file *file, fuse_req_t req);
void text_measure(struct open_file *file, fuse_req_t req, open_file_measured *measured);

/* Moves a text into the file: readers get it from there. files->lock held. */
void text_take_locked(struct open_file *file, struct ap_buf *text);

/* Answers all waiting readers: the text has come (0), or the reason why not. */
void text_complete(struct open_file *file, int result);

/* Parks a request, in no list yet; the caller fills in what it waits for. NULL on ENOMEM. */
struct reader *reader_new(struct open_file *file, fuse_req_t req, parked_interrupted *interrupted);

/* Handles the interrupt of a reader: takes it out of its list and replies, unless it is in none. */
void reader_interrupted(struct parked *parked, void *reader);

/* Replies with an error, unless there was a reply, and drops the parked request. */
void parked_fail(struct parked *parked, int error);

/* --- following.c --- */

/* Starts the file's stream at the present end of the events. -ENOMEM. */
int follow_open(struct open_file *file);
void follow_close(struct open_file *file);

/* Replies when there are events, or none to come. Without `wait`, a read that would wait gets
 * EAGAIN. */
void follow_read(struct open_file *file, fuse_req_t req, size_t size, bool wait);

/* Call when there are more events, or will be none: answers the waiting readers. */
void follow_grew(struct open_files *files);

/* The stream's poll events; `ret_seen` is another when there is news. files->lock held. */
unsigned follow_poll_locked(const struct open_file *file, uint64_t *ret_seen);

/* --- polling.c --- */

/* Prepares a read from the start of a value: makes the next snapshot if the value was read or
 * polled before. -ENODEV, -ENOMEM. */
int value_renew(struct open_file *file);

/* Takes the file's poll handle, for poll_notify(); NULL: there is none. files->lock held. */
struct fuse_pollhandle *poll_take_locked(struct open_file *file);

/* Wakes the pollers, who then poll again. Takes `handle` over, which may be NULL. Call without
 * locks. */
void poll_notify(struct fuse_pollhandle *handle);

/* Drops the file's poll handle without a notification. */
void poll_close(struct open_file *file);
void polling_free(struct polling *polling);

/* --- writing.c --- */

#define LINE_MAX_LEN 4096

/* The length of the line at the start of `text` with its newline; all of it if there is none. */
size_t line_length(const char *text, size_t len);

/* Copies the line without its newline. -EINVAL. */
int line_copy(const char *text, size_t len, char ret[LINE_MAX_LEN + 1], struct ap_err *err);

static inline bool line_is_comment(const char *line)
{
	return line[0] == '#';
}

/* Records in last_error why the user was refused: the sentence in `err`, or that of the errno. */
void refused(const struct open_file *file, int error, const struct ap_err *err);

/* Re-checks permission when buffered data is consumed: the lease may have ended since the write. */
int may_still_write(struct open_file *file, struct ap_err *err);

/* Runs lines whose commands are done at once. Returns the bytes of the lines that took effect, or
 * the error of the first line. */
ssize_t run_lines(struct open_file *file, const char *text, size_t len);

/* Sets, at the close, a value that was written without a newline. Replies. */
void value_end(struct open_file *file, fuse_req_t req);

/* At the last close of a file that takes a whole text: gives the text to the row. */
void take_end(struct open_file *file);

void writing_free(struct writing *writing);

/* --- holding.c --- */

/* Handles a write through a handle that is to be a lease: asks for the lease. Replies. */
void hold(struct open_file *file, fuse_req_t req, const char *text, size_t len);
