/* Files of /proc: as they stand, and as the kernel writes them round a name of the input, which any
 * program may choose. Byte 0 to 3 are numbers in them. */
#include "fuzz.h"

#define read_proc activity_read_proc /* each file has its own */
#include "../../core/session/activity.c"
#undef read_proc
#include "../../core/host/process_tree.c"
#include "../../fs/parked.c"

static void anything_holds(const char *text)
{
	struct pids pids = {0};
	char state;
	int foreground;
	uint64_t pss;
	unsigned long long mask = 1ull << 63;
	struct process_stat stat = {0};
	if (parse_stat(text, &stat))
		HOLDS(stat.cpu_ns >= 0);
	(void)stat_parse(text, &state, &foreground); /* whether it is one */
	(void)pss_of(text, &pss);
	if (!pending_mask(text, "\nSigPnd:", &mask))
		HOLDS(mask == 1ull << 63);
	HOLDS(mask & 1ull << 63);
	HOLDS(pids_add(&pids, text) == 0 && pids.n <= strlen(text));
	for (size_t i = 0; i < pids.n; i++)
		HOLDS(pids.at[i] > 0); /* 0 and less mean whole groups to kill() */
	free(pids.at);
}

/* The kernel's name of a process: 15 bytes, a newline or backslash escaped in `status` only. */
static void stat_holds(const char *name, const uint8_t number[4])
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char state = 0;
	int foreground = 0;
	ap_buf_printf(&text,
		      "17 (%.15s) S 1 17 17 34816 %d 4194304 1 2 3 4 %d %d %d %d 20 0 1 0 5 6 7\n",
		      name, number[0] * 100, number[0], number[1], number[2], number[3]);
	int64_t ticks = number[0] + number[1] + number[2] + number[3];
	struct process_stat stat = {0};
	HOLDS(parse_stat(ap_buf_text(&text), &stat));
	HOLDS(stat.cpu_ns == ticks * (AP_SECOND / sysconf(_SC_CLK_TCK)) && stat.parent == 1);
	HOLDS(stat_parse(ap_buf_text(&text), &state, &foreground));
	HOLDS(state == 'S' && foreground == number[0] * 100);
}

static void status_holds(const char *name, const uint8_t number[4])
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	unsigned long long mask = 0;
	ap_buf_adds(&text, "Name:\t");
	for (size_t i = 0; i < 15 && name[i]; i++)
		ap_buf_printf(&text, name[i] == '\n' ? "\\n" : "%c", name[i]);
	ap_buf_printf(&text, "\nState:\tS\nSigPnd:\t%016x\nShdPnd:\t%016x\nSigBlk:\t%016x\n",
		      number[0], number[1] << 8, number[2] << 16);
	HOLDS(pending_mask(ap_buf_text(&text), "\nSigPnd:", &mask) && mask == number[0]);
	HOLDS(pending_mask(ap_buf_text(&text), "\nShdPnd:", &mask));
	HOLDS(mask == (number[0] | (unsigned)number[1] << 8));
}

static void others_hold(const uint8_t number[4])
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct pids pids = {0};
	uint64_t pss = 0;
	ap_buf_printf(&text, "0040-7ffc ---p 0 00:00 0 [rollup]\nRss: %8d kB\nPss: %8d kB\n",
		      number[0], number[1]);
	HOLDS(pss_of(ap_buf_text(&text), &pss) && pss == number[1] * 1024u);
	text.len = 0;
	for (unsigned i = 0; i < 4; i++)
		ap_buf_printf(&text, "%d ", 1 + number[i]);
	HOLDS(pids_add(&pids, ap_buf_text(&text)) == 0 && pids.n == 4);
	for (unsigned i = 0; i < 4; i++)
		HOLDS(pids.at[i] == 1 + number[i]);
	free(pids.at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	uint8_t number[4];
	for (size_t i = 0; i < sizeof number; i++)
		number[i] = fuzz_byte(&input);
	char *text = fuzz_text(&input);
	anything_holds(text);
	stat_holds(text, number);
	status_holds(text, number);
	others_hold(number);
	free(text);
	return 0;
}
