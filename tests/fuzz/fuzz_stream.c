/* What a program prints, in two pieces, down to what it says beside the text: a shell's marks and
 * titles, and the events of the driver stream. Byte 0 says where it is cut. */
#include "fuzz.h"
#include "rules.h"

#include "../../core/session/output.c"

static const char *const dirs[] = {AP_SOURCE_DIR "/share/programs", NULL};

static struct profile *profile_of(const char *name)
{
	struct profile *profile = NULL;
	struct ap_err err = {""};
	HOLDS(profile_load(&profile, name, dirs, &err) == 0);
	return profile;
}

static void begin(struct session *session, struct session_host *host)
{
	bool stream = profile_values(host->profile)->mode == PROFILE_STREAM;
	*session = (struct session){.host = host,
				    .driver = stream ? &driver_stream : &driver_terminal};
	output_init(session);
	signs_reset(session);
}

/* As read_on() does with what the file holds. */
static void reads(struct session *session, const char *text, size_t len)
{
	AP_CLEANUP_BUF struct ap_buf plain = {0};
	if (session->driver->printed)
		session->driver->printed(session, text, len, 0, &plain);
	else
		ap_plain_add(&session->filter, text, len, &plain);
	atomic_fetch_add(&session->plain.size, (int64_t)plain.len);
}

static void marks_hold(const struct session *session)
{
	const struct output_signs *signs = &session->signs;
	int64_t size = atomic_load(&session->plain.size), from, to;
	HOLDS(signs->command_start >= -1 && signs->command_start <= size);
	HOLDS(signs->command_end >= -1 && signs->command_end <= size);
	response_range(session, &from, &to);
	HOLDS(from >= 0 && to <= size && to - from <= RESPONSE_MAX);
}

static void texts_hold(const struct session *session)
{
	HOLDS(memchr(session->signs.title, '\0', sizeof session->signs.title));
	HOLDS(session->response.len == 0 || session->response.data[session->response.len - 1] == '\n');
	HOLDS(!memchr(ap_buf_text(&session->line), '\n', session->line.len));
}

static void sessions_agree(const struct session *a, const struct session *b)
{
	const struct output_signs *one = &a->signs, *other = &b->signs;
	HOLDS(atomic_load(&a->plain.size) == atomic_load(&b->plain.size));
	HOLDS(one->command_start == other->command_start);
	HOLDS(one->command_end == other->command_end);
	HOLDS(one->runs_command == other->runs_command);
	HOLDS(one->told.found == other->told.found);
	HOLDS(strcmp(one->told.why, other->told.why) == 0);
	HOLDS(strcmp(one->title, other->title) == 0);
	HOLDS(a->line.len == b->line.len && a->response.len == b->response.len);
	HOLDS(strcmp(ap_buf_text(&a->response), ap_buf_text(&b->response)) == 0);
}

static void pieces_hold(struct profile *profile, const char *text, size_t len, size_t cut)
{
	static struct session_host host;
	static struct session whole, pieces;
	host.profile = profile;
	begin(&whole, &host);
	begin(&pieces, &host);
	reads(&whole, text, len);
	reads(&pieces, text, cut);
	texts_hold(&pieces);
	reads(&pieces, text + cut, len - cut);
	texts_hold(&whole);
	texts_hold(&pieces);
	/* a backspace takes away what was in the same piece only, and may go behind a mark */
	if (!memchr(text, '\b', len)) {
		marks_hold(&whole);
		marks_hold(&pieces);
		sessions_agree(&whole, &pieces);
	}
	output_fini(&whole);
	output_fini(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct profile *shell, *stream;
	struct fuzz_input input = {data, size};
	shell = shell ? shell : profile_of("bash");
	stream = stream ? stream : profile_of("claude-stream");
	size_t cut = fuzz_byte(&input);
	char *text = fuzz_copy(input.at, input.left);
	cut = input.left ? cut % (input.left + 1) : 0;
	pieces_hold(shell, text, input.left, cut);
	pieces_hold(stream, text, input.left, cut);
	events_hold(stream, text);
	free(text);
	return 0;
}
