/* What a program prints, in two pieces, down to what it says beside the text: a shell's marks and
 * titles, and the events of mode stream. Byte 0 says where it is cut. */
#include "fuzz.h"
#include "rules.h"

#include "../../core/output.c"

static const char *const dirs[] = {AP_SOURCE_DIR "/share/programs", NULL};

static struct profile *profile_of(const char *name)
{
	struct profile *profile = NULL;
	struct ap_err err = {""};
	HOLDS(profile_load(&profile, name, dirs, &err) == 0);
	return profile;
}

static void agent_init(struct ap_agent *agent, struct ap_pool *pool)
{
	*agent = (struct ap_agent){.pool = pool};
	output_init(agent);
	signs_reset(agent);
}

/* As read_on() does with what the file holds. */
static void agent_reads(struct ap_agent *agent, const char *text, size_t len)
{
	AP_CLEANUP_BUF struct ap_buf plain = {0};
	ap_plain_add(&agent->filter, text, len, &plain);
	if (profile_values(agent->pool->profile)->stream)
		read_events(agent, &plain);
	atomic_fetch_add(&agent->plain.size, (int64_t)plain.len);
}

static void marks_hold(const struct ap_agent *agent)
{
	const struct output_signs *signs = &agent->signs;
	int64_t size = atomic_load(&agent->plain.size), from, to;
	HOLDS(signs->command_start >= -1 && signs->command_start <= size);
	HOLDS(signs->command_end >= -1 && signs->command_end <= size);
	response_range(agent, &from, &to);
	HOLDS(from >= 0 && to <= size && to - from <= RESPONSE_MAX);
}

static void texts_hold(const struct ap_agent *agent)
{
	HOLDS(memchr(agent->signs.title, '\0', sizeof agent->signs.title));
	HOLDS(agent->response.len == 0 || agent->response.data[agent->response.len - 1] == '\n');
	HOLDS(!memchr(ap_buf_text(&agent->line), '\n', agent->line.len));
}

static void agents_agree(const struct ap_agent *a, const struct ap_agent *b)
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
	static struct ap_pool pool;
	static struct ap_agent whole, pieces;
	pool.profile = profile;
	agent_init(&whole, &pool);
	agent_init(&pieces, &pool);
	agent_reads(&whole, text, len);
	agent_reads(&pieces, text, cut);
	texts_hold(&pieces);
	agent_reads(&pieces, text + cut, len - cut);
	texts_hold(&whole);
	texts_hold(&pieces);
	/* a backspace takes away what was in the same piece only, and may go behind a mark */
	if (!memchr(text, '\b', len)) {
		marks_hold(&whole);
		marks_hold(&pieces);
		agents_agree(&whole, &pieces);
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
