/* git locks a ref by a file beside it, REF.lock, and packed-refs by packed-refs.lock; one whose
 * holder was killed stays for ever, and holds up whoever sets the ref after that. So what we are
 * about to lock is noted in a directory of our own first: a later daemon removes what the notes of
 * a dead one name, and no other lock. A note is for kill -9: it is not synced. */
#pragma once

#include "err.h"

#define REF_NOTE_SIZE 32 /* bytes of a note's name */

/* Notes in `dir` that this thread locks `ref` from now on; `ret` is the note's name. Where there is
 * no room for it there is no note: nothing else fails for the want of it. Does nothing, as
 * ref_note_drop() does, where `dir` is NULL. */
void ref_note_take(const char *dir, const char *ref, char ret[REF_NOTE_SIZE]);

/* The ref is not locked any more. */
void ref_note_drop(const char *dir, const char *note);

/* Removes the notes in a directory, and the locks that they name below a git directory, if
 * they are plain files of this user that were made after the note. No process that has taken a note
 * may be there any more. Blocks. */
int ref_notes_settle(const char *dir, const char *git_dir, struct ap_err *err);
