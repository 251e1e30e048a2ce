/* Intrusive, doubly linked, counted list. The node lives in the element; a node is in at most one
 * list and knows which. All operations are constant time. */
#ifndef CORE_BASE_LIST_H
#define CORE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *next, *prev;
    struct list *in; /* NULL: in no list */
};

struct list {
    struct list_node *first, *last;
    size_t count;
};

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Safe against removal of the current element. */
#define LIST_FOREACH(list, n, following)                                                           \
    for (struct list_node *n = (list)->first, *following = n ? n->next : NULL; n != NULL;          \
         n = following, following = n ? n->next : NULL)

static inline void list_append(struct list *l, struct list_node *n)
{
    n->next = NULL;
    n->prev = l->last;
    n->in = l;
    if (l->last != NULL)
        l->last->next = n;
    else
        l->first = n;
    l->last = n;
    l->count++;
}

static inline void list_prepend(struct list *l, struct list_node *n)
{
    n->prev = NULL;
    n->next = l->first;
    n->in = l;
    if (l->first != NULL)
        l->first->prev = n;
    else
        l->last = n;
    l->first = n;
    l->count++;
}

/* Nothing happens when the node is in no list. */
static inline void list_remove(struct list_node *n)
{
    struct list *l = n->in;
    if (l == NULL)
        return;
    if (n->prev != NULL)
        n->prev->next = n->next;
    else
        l->first = n->next;
    if (n->next != NULL)
        n->next->prev = n->prev;
    else
        l->last = n->prev;
    l->count--;
    n->next = n->prev = NULL;
    n->in = NULL;
}

static inline struct list_node *list_pop(struct list *l)
{
    struct list_node *n = l->first;
    if (n != NULL)
        list_remove(n);
    return n;
}

#endif
