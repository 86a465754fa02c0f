/* Chooses the implementation of git.h for a repository. */
#include "git_internal.h"

int ap_git_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err)
{
	int r = place->by_program ? 1 : git_libgit2_open(ret, place, err);
	return r > 0 ? git_program_open(ret, place, err) : r;
}
