/* config/: one option a file, made from the pool's own table of options. */
#include "tree.h"

#include <string.h>

struct tree_row tree_config[AP_N_OPTIONS + 1];

static int show(const struct tree_call *call, struct ap_buf *out)
{
	ap_pool_config_show(call->pool, (enum ap_option)call->index, out);
	ap_buf_adds(out, "\n");
	return 0;
}

static int set(const struct tree_call *call, char *value, struct ap_request *request)
{
	char *text = value + strspn(value, " \t");
	size_t len = strlen(text);
	while (len > 0 && strchr(" \t", text[len - 1]))
		text[--len] = '\0';
	enum ap_option option = (enum ap_option)call->index;
	return request ? ap_pool_config_set(call->pool, option, text, request, call->err)
		       : ap_pool_config_try(call->pool, option, text, call->err);
}

void tree_config_init(void)
{
	for (int i = 0; i < AP_N_OPTIONS; i++)
		tree_config[i] = (struct tree_row){
			.name = ap_options[i].name,
			.doc = ap_options[i].doc,
			.show = show,
			.set = set,
		};
}
