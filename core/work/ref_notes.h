/* git locks a ref by a file beside it, REF.lock, and packed-refs by packed-refs.lock; a lock whose
 * holder was killed stays for ever, and blocks everybody who sets the ref after that. So we first
 * write a note of the ref that we are about to lock into a directory of our own: a later daemon
 * removes the locks that the notes of a dead one name, and no others. A note is for kill -9: it is
 * not synced. */
#pragma once

#include "err.h"

#define REF_NOTE_SIZE 32 /* bytes of a note's name */

/* Notes in `dir` that this thread locks `ref` from now on; `ret` is the note's name. If the note
 * cannot be written there is none, and nothing else fails. Does nothing if `dir` is NULL, as
 * ref_note_drop(). */
void ref_note_take(const char *dir, const char *ref, char ret[REF_NOTE_SIZE]);

/* Removes a note: the ref is not locked any more. */
void ref_note_drop(const char *dir, const char *note);

/* Removes the notes in a directory, and the locks that they name below a git directory, if they are
 * plain files of this user that were made after the note. No process that took a note may run any
 * more. Blocks. */
int ref_notes_settle(const char *dir, const char *git_dir, struct ap_err *err);
