/* kept/LABEL@TOKEN/: what a lease left. The link leads into the state directory, which only users
 * who may see worktrees can enter. */
#include <errno.h>

#include "tree.h"

static int text(const struct tree_call *call, enum ap_kept_work_text what, struct ap_buf *out)
{
	int r = ap_kept_work_show(call->pool, call->number, what, out);
	return r < 0 ? ap_err_set(call->err, r, "what was kept has been removed") : 0;
}

static int info_show(const struct tree_call *call, struct ap_buf *out)
{
	return text(call, AP_KEPT_WORK_INFO, out);
}

static int size_show(const struct tree_call *call, struct ap_buf *out)
{
	return text(call, AP_KEPT_WORK_SIZE, out);
}

static int files_link(const struct tree_call *call, struct ap_buf *out)
{
	return text(call, AP_KEPT_WORK_FILES, out);
}

const struct tree_row tree_kept[] = {
	{"info", "what is known of the lease, key value a line", .show = info_show},
	{"size", "bytes that it takes; empty: they are not counted yet", .show = size_show},
	{"files", "absolute path of its files", .link = files_link},
	{0},
};
