/* Intrusive doubly linked lists: membership costs no memory and no allocation, removal is O(1).
 * A node that is in no list points to itself. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct ap_list {
	struct ap_list *prev, *next;
};

#define ap_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define ap_list_for_each(pos, head) for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)

/* As ap_list_for_each, but the visited node may be removed; `tmp` is a second cursor. */
#define ap_list_for_each_safe(pos, tmp, head)                                                      \
	for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head);                           \
	     (pos) = (tmp), (tmp) = (pos)->next)

static inline void ap_list_init(struct ap_list *node)
{
	node->prev = node->next = node;
}

static inline bool ap_list_empty(const struct ap_list *head)
{
	return head->next == head;
}

/* Takes a node out of its list, if it is in one. */
static inline void ap_list_remove(struct ap_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	ap_list_init(node);
}

/* Puts a node that is in no list behind `at`: behind the head means first. */
static inline void ap_list_insert_after(struct ap_list *at, struct ap_list *node)
{
	node->prev = at;
	node->next = at->next;
	at->next->prev = node;
	at->next = node;
}

/* Puts a node that is in no list at the end. */
static inline void ap_list_append(struct ap_list *head, struct ap_list *node)
{
	ap_list_insert_after(head->prev, node);
}

/* Moves all nodes of `from` to the empty list `to`. */
static inline void ap_list_splice(struct ap_list *from, struct ap_list *to)
{
	if (ap_list_empty(from))
		return;
	*to = *from;
	to->next->prev = to->prev->next = to;
	ap_list_init(from);
}
