/* The stream of tmux's control mode, in pieces. Byte 0 says how many answers are waited for, byte 1
 * how large the pieces are. Lines that begin with a letter make a stream as tmux would: `a` begins
 * the answer to a command of ours, `x` that to somebody else's, `o` and `e` end it well or badly,
 * `f` is the end of another; others are text, or notifications. The same input is fed as it stands,
 * too. */
#include "fuzz.h"

#include "../../core/host/backend_tmux.c"

#define N_COMMANDS 4

struct answer {
	struct tmux_command *command;
	struct ap_buf out;
};

struct reader {
	struct backend_tmux tmux;
	int feed;
	struct answer answers[N_COMMANDS];
	unsigned n;
};

static void reader_init(struct reader *reader, unsigned n)
{
	int fds[2];
	*reader = (struct reader){.n = n};
	HOLDS(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
	reader->tmux.out_fd = fds[0];
	reader->feed = fds[1];
	pthread_mutex_init(&reader->tmux.lock, NULL);
	ap_list_init(&reader->tmux.commands);
	for (unsigned i = 0; i < n; i++) {
		struct answer *answer = &reader->answers[i];
		answer->command = command_new(1 + i % 2, &answer->out);
		HOLDS(answer->command);
		ap_list_append(&reader->tmux.commands, &answer->command->link);
	}
}

/* Answers come in order: behind one that is open all are. */
static void order_holds(const struct reader *reader)
{
	bool open = false;
	for (unsigned i = 0; i < reader->n; i++) {
		const struct tmux_command *command = reader->answers[i].command;
		HOLDS(command->n_blocks <= 1 + i % 2);
		HOLDS(!open || (command->n_blocks == 1 + i % 2 && !command->failed));
		HOLDS(!open || reader->answers[i].out.len == 0);
		HOLDS(command->failed || command->error.len == 0);
		open = open || command->n_blocks > 0;
	}
	HOLDS(!memchr(ap_buf_text(&reader->tmux.line), '\n', reader->tmux.line.len));
}

static void reader_feed(struct reader *reader, const char *text, size_t len, size_t piece)
{
	while (len > 0) {
		size_t n = piece < len ? piece : len;
		HOLDS(write(reader->feed, text, n) == (ssize_t)n);
		HOLDS(tmux_ready(&reader->tmux.shims.base));
		order_holds(reader);
		text += n;
		len -= n;
	}
}

/* The end of the stream answers all who wait. */
static void reader_fini(struct reader *reader)
{
	close(reader->feed);
	HOLDS(!tmux_ready(&reader->tmux.shims.base) && reader->tmux.dead);
	tmux_hang_up(&reader->tmux.shims.base);
	HOLDS(reader->tmux.out_fd == -1);
	for (unsigned i = 0; i < reader->n; i++) {
		HOLDS(reader->answers[i].command->n_blocks == 0);
		command_free(reader->answers[i].command);
		ap_buf_fini(&reader->answers[i].out);
	}
	ap_buf_fini(&reader->tmux.line);
	ap_buf_fini(&reader->tmux.block);
	pthread_mutex_destroy(&reader->tmux.lock);
}

static bool same(const struct ap_buf *a, const struct ap_buf *b)
{
	return a->len == b->len && memcmp(ap_buf_text(a), ap_buf_text(b), a->len) == 0;
}

static void readers_agree(const struct reader *a, const struct reader *b)
{
	for (unsigned i = 0; i < a->n; i++) {
		const struct tmux_command *one = a->answers[i].command;
		const struct tmux_command *other = b->answers[i].command;
		HOLDS(one->n_blocks == other->n_blocks && one->failed == other->failed);
		HOLDS(same(&one->error, &other->error));
		HOLDS(same(&a->answers[i].out, &b->answers[i].out));
	}
}

static void pieces_hold(unsigned n, size_t piece, const char *text, size_t len)
{
	struct reader whole, pieces;
	reader_init(&whole, n);
	reader_init(&pieces, n);
	reader_feed(&whole, text, len, len);
	reader_feed(&pieces, text, len, piece);
	readers_agree(&whole, &pieces);
	reader_fini(&whole);
	reader_fini(&pieces);
}

/* --- a stream as tmux makes it, and what it must come to --- */

struct stream {
	struct ap_buf text;
	bool in_block;
	unsigned flags, number; /* of the block */
	struct ap_buf block;
	/* what the commands are to have got */
	struct ap_buf out[N_COMMANDS], error[N_COMMANDS];
	unsigned n_blocks[N_COMMANDS], at, n;
	bool failed[N_COMMANDS];
};

static void stream_answered(struct stream *stream, bool error)
{
	unsigned i = stream->at;
	if (!(stream->flags & 1) || i == stream->n)
		return;
	if (!error)
		ap_buf_add(&stream->out[i], ap_buf_text(&stream->block), stream->block.len);
	else if (!stream->failed[i])
		ap_buf_add(&stream->error[i], ap_buf_text(&stream->block), stream->block.len);
	else /* the first failure says why; what comes then is text as any */
		ap_buf_add(&stream->out[i], ap_buf_text(&stream->block), stream->block.len);
	stream->failed[i] = stream->failed[i] || error;
	if (++stream->n_blocks[i] == 1 + i % 2)
		stream->at++;
}

/* Text of a block, which is never its end. */
static void stream_text(struct stream *stream, const char *line)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	if (*line == 'f')
		ap_buf_printf(&text, "%%%s 1700000000 %u 1\n", line[1] == 'e' ? "error" : "end",
			      stream->number + 1);
	else if (strncmp(line, "%end ", 5) == 0 || strncmp(line, "%error ", 7) == 0)
		ap_buf_printf(&text, "%.*s x%s\n", (int)strcspn(line, " "), line,
			      strchr(line, ' '));
	else
		ap_buf_printf(&text, "%s\n", line);
	ap_buf_add(&stream->text, ap_buf_text(&text), text.len);
	ap_buf_add(&stream->block, ap_buf_text(&text), text.len);
}

static void stream_line(struct stream *stream, const char *line)
{
	bool ends = *line == 'o' || *line == 'e';
	if (!stream->in_block && (*line == 'a' || *line == 'x')) {
		stream->in_block = true;
		stream->flags = *line == 'a' ? 1 + (line[1] & 2u) : line[1] & 2u;
		stream->block.len = 0;
		ap_buf_printf(&stream->text, "%%begin 1700000000 %u %u\n", ++stream->number,
			      stream->flags);
	} else if (stream->in_block && ends) {
		stream->in_block = false;
		ap_buf_printf(&stream->text, "%%%s 1700000000 %u %u\n",
			      *line == 'o' ? "end" : "error", stream->number, stream->flags);
		stream_answered(stream, *line == 'e');
	} else if (stream->in_block) {
		stream_text(stream, line);
	} else {
		ap_buf_printf(&stream->text, "%%note %s\n", line);
	}
}

static void stream_make(struct stream *stream, struct fuzz_input input)
{
	while (input.left > 0) {
		char *line = fuzz_line(&input);
		stream_line(stream, line);
		free(line);
	}
}

static void stream_holds(unsigned n, size_t piece, struct fuzz_input input)
{
	struct stream stream = {.n = n};
	struct reader reader;
	stream_make(&stream, input);
	reader_init(&reader, n);
	reader_feed(&reader, ap_buf_text(&stream.text), stream.text.len, piece);
	for (unsigned i = 0; i < n; i++) {
		const struct tmux_command *command = reader.answers[i].command;
		HOLDS(command->n_blocks == 1 + i % 2 - stream.n_blocks[i]);
		HOLDS(command->failed == stream.failed[i]);
		HOLDS(same(&command->error, &stream.error[i]));
		HOLDS(same(&reader.answers[i].out, &stream.out[i]));
	}
	reader_fini(&reader);
	for (unsigned i = 0; i < N_COMMANDS; i++) {
		ap_buf_fini(&stream.out[i]);
		ap_buf_fini(&stream.error[i]);
	}
	ap_buf_fini(&stream.text);
	ap_buf_fini(&stream.block);
}

/* --- words --- */

/* Reads what quote() wrote as tmux does: a word in single quotes, `\'` between them. */
static void unquote(const char *quoted, struct ap_buf *ret)
{
	HOLDS(*quoted == ' ');
	bool inside = false;
	for (const char *at = quoted + 1; *at; at++) {
		if (*at == '\'') {
			inside = !inside;
		} else if (!inside && *at == '\\') {
			ap_buf_add(ret, ++at, 1);
		} else {
			HOLDS(inside);
			ap_buf_add(ret, at, 1);
		}
	}
	HOLDS(!inside);
}

static void quoting_holds(const char *word)
{
	AP_CLEANUP_BUF struct ap_buf quoted = {0}, plain = {0};
	quote(&quoted, word);
	unquote(ap_buf_text(&quoted), &plain);
	HOLDS(strcmp(ap_buf_text(&plain), word) == 0);
	quoted.len = plain.len = 0;
	quote_doubled(&quoted, word, "#%");
	unquote(ap_buf_text(&quoted), &plain);
	const char *at = ap_buf_text(&plain);
	for (; *word; word++) {
		HOLDS(*at++ == *word);
		if (*word == '#' || *word == '%')
			HOLDS(*at++ == *word);
	}
	HOLDS(plain.len == 0 || *at == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	unsigned n = fuzz_byte(&input) % (N_COMMANDS + 1);
	size_t piece = 1 + fuzz_byte(&input) % 64u;
	char *text = fuzz_copy(input.at, input.left);
	pieces_hold(n, piece, text, input.left);
	stream_holds(n, piece, input);
	quoting_holds(text);
	free(text);
	return 0;
}
