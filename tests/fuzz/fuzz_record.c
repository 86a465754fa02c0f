/* Records in the state directory: that of a lease, and the first line of any. */
#include "fuzz.h"

#include <inttypes.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "file.h"
#include "pool_internal.h"

static char dir[] = "/tmp/fuzz-record-XXXXXX", path[64];

static void remove_all(void)
{
	unlink(path);
	rmdir(dir);
}

static void prepare(const void *text, size_t len)
{
	if (!path[0]) {
		HOLDS(mkdtemp(dir));
		snprintf(path, sizeof path, "%s/lease", dir);
		atexit(remove_all);
	}
	FILE *file = fopen(path, "we");
	HOLDS(file && fwrite(text, 1, len, file) == len && fclose(file) == 0);
}

/* What was read is written as it was read. */
static void lease_holds(void)
{
	struct lease_record record, again;
	AP_CLEANUP_BUF struct ap_buf text = {0};
	if (lease_record_read(dir, &record) != 1)
		return;
	HOLDS(ap_label_valid(record.lease.label) && record.lease.base[0]);
	HOLDS(strlen(record.lease.base) <= GIT_OID_MAX);
	HOLDS(record.admin_dir[0] == '/' && !strchr(record.admin_dir, '\n'));
	ap_buf_printf(&text, "%s %s %d %u %" PRIu64 "\n%s\n", record.lease.label, record.lease.base,
		      record.lease.created, record.generation, record.token, record.admin_dir);
	prepare(ap_buf_text(&text), text.len);
	HOLDS(lease_record_read(dir, &again) == 1);
	HOLDS(strcmp(record.lease.label, again.lease.label) == 0);
	HOLDS(strcmp(record.lease.base, again.lease.base) == 0);
	HOLDS(record.lease.created == again.lease.created && record.token == again.token);
	HOLDS(record.generation == again.generation);
	HOLDS(strcmp(record.admin_dir, again.admin_dir) == 0);
	free(record.admin_dir);
	free(again.admin_dir);
}

static void line_holds(const char *text, size_t size)
{
	AP_CLEANUP_FREE char *line = malloc(size); /* exactly: what writes on is caught */
	HOLDS(line && file_read_line(dir, "lease", line, size) == 0);
	size_t len = strcspn(text, "\n");
	HOLDS(strlen(line) == (len < size ? len : size - 1));
	HOLDS(strncmp(line, text, strlen(line)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_copy(data, size);
	prepare(data, size);
	line_holds(text, 1);
	line_holds(text, 64);
	line_holds(text, 4096);
	if (strlen(text) == size)
		lease_holds();
	free(text);
	return 0;
}
