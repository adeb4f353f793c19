/* Blocks that one thread hands to another. */
#ifndef QUEUE_H
#define QUEUE_H

#include "blocks.h"

enum { QUEUE = 4096 };

struct queue {
    pthread_mutex_t lock;
    size_t first, count;
    struct block blocks[QUEUE];
};

/* False if it is full. */
static bool put(struct queue *queue, const struct block *block)
{
    pthread_mutex_lock(&queue->lock);
    const bool fits = queue->count < QUEUE;
    if (fits)
        queue->blocks[(queue->first + queue->count++) % QUEUE] = *block;
    pthread_mutex_unlock(&queue->lock);
    return fits;
}

/* False if it is empty. */
static bool get(struct queue *queue, struct block *block)
{
    pthread_mutex_lock(&queue->lock);
    const bool any = queue->count > 0;
    if (any) {
        *block = queue->blocks[queue->first];
        queue->first = (queue->first + 1) % QUEUE;
        queue->count--;
    }
    pthread_mutex_unlock(&queue->lock);
    return any;
}

#endif
