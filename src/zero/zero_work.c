// zero_work.c: stage 3 gathers weights into four places: the embedding's, two for layers in turn, the head's. Stage 2
// has three for gradients. What was gathered stays valid until the place is taken or the weights change.
#include "zero/zero_work.h"

#include "base/mem.h"
#include "comm/coll.h"

enum { PLACE_EMBED, PLACE_EVEN, PLACE_ODD, PLACE_HEAD, PLACES };

typedef struct {
    Dev *data;
    int block; // -1: none
    CollPending pending;
} Place; // a block that is whole, or about to be

struct ZeroWork {
    const Kernels *k;
    Place place[PLACES]; // weights, stage 3
    Dev *grad[PLACES];   // stages 2, 3; both layers' are the same
    Store all;           // between zero_gather and zero_release
    Dev *packet;         // weights that travel quantized: room for the parts of the largest block; else NULL
    Place *in_packet;    // whose they are, until they have landed; NULL: nobody's
};

static int place_of(const ZeroState *z, int block) {
    if (block == 0) return PLACE_EMBED;
    return block == z->map.blocks - 1 ? PLACE_HEAD : block % 2 ? PLACE_ODD : PLACE_EVEN;
}

// Elements of the largest padded block that lives in a place.
static int64_t room(const ZeroState *z, const ShardMap *map, int place, bool any_layer) {
    int64_t most = 0;
    for (int b = 0; b < map->blocks; b++) {
        int p = place_of(z, b);
        bool layer = p == PLACE_EVEN || p == PLACE_ODD;
        if (p == place || (any_layer && layer && (place == PLACE_EVEN || place == PLACE_ODD)))
            most = ds_max(most, map->start[b + 1] - map->start[b]);
    }
    return most;
}

static Dev *create_packet(const ZeroState *z) {
    int64_t most = 0;
    for (int b = 0; b < z->map.blocks; b++) most = ds_max(most, z->map.start[b + 1] - z->map.start[b]);
    return z->k->mem_create(kernels_quant_bytes(z->quant.weight_bits, most), MEM_COMM);
}

struct ZeroWork *zero_work_create(const ZeroState *z) {
    struct ZeroWork *work = MEM_NEW(struct ZeroWork, 1);
    work->k = z->k;
    for (int p = 0; p < PLACES; p++) {
        work->place[p].block = -1;
        if (z->stage == 3)
            work->place[p].data =
                z->k->mem_create((size_t)room(z, &z->map, p, false) * dtype_bytes(z->w.dtype), MEM_COMM);
        if (z->trained && !z->g.data)
            work->grad[p] = p == PLACE_ODD ? work->grad[PLACE_EVEN]
                                           : z->k->mem_create((size_t)room(z, &z->grad_map, p, true) * sizeof(float),
                                                              MEM_GRADIENTS);
    }
    if (z->stage == 3 && z->quant.weight_bits) work->packet = create_packet(z);
    return work;
}

void zero_work_destroy(struct ZeroWork **pw) {
    struct ZeroWork *work = *pw;
    if (!work) return;
    for (int p = 0; p < PLACES; p++) {
        if (work->place[p].data) {
            coll_finish(&work->place[p].pending);
            work->k->mem_destroy(work->place[p].data);
        }
        if (work->grad[p] && p != PLACE_ODD) work->k->mem_destroy(work->grad[p]);
    }
    store_destroy(&work->all);
    if (work->packet) work->k->mem_destroy(work->packet);
    MEM_FREE(*pw);
}

Dev *zero_work_weights(const ZeroState *z, int block) {
    struct ZeroWork *work = z->work;
    if (work->all.data) return store_at(&work->all, block, 0);
    Place *p = &work->place[place_of(z, block)];
    if (p->block != block) err_fatal("the weights of block %d are used, those of block %d are open", block, p->block);
    return p->data;
}

Dev *zero_work_grads(const ZeroState *z, int block) {
    return z->g.data ? store_at(&z->g, block, 0) : z->work->grad[place_of(z, block)];
}

// Waits for the parts of the place's block.
static void land(const ZeroState *z, Place *p) {
    struct ZeroWork *work = z->work;
    coll_finish(&p->pending);
    if (work->in_packet != p) return;
    z->k->dequantize(z->quant.weight_bits, z->w.dtype, p->data, work->packet, z->map.part[p->block] * z->map.shards);
    work->in_packet = NULL;
}

// Whoever has the packet lands first: one block is on its way at a time, which is as far ahead as zero_open looks.
static void start_packet(const ZeroState *z, Place *p) {
    struct ZeroWork *work = z->work;
    const int64_t part = z->map.part[p->block];
    const size_t bytes = kernels_quant_bytes(z->quant.weight_bits, part);
    if (work->in_packet) land(z, work->in_packet);
    z->k->quantize(z->quant.weight_bits, dev_at(work->packet, (size_t)z->shard * bytes), z->w.dtype,
                   store_at(&z->w, p->block, 0), part);
    coll_allgather_start(z->layout->zero, work->packet, (int64_t)bytes, 1, &p->pending);
    work->in_packet = p;
}

// Copies the own part to its place in the whole block and lets the others' parts come.
static void start(const ZeroState *z, Place *p) {
    const int64_t part = z->map.part[p->block];
    const size_t size = dtype_bytes(z->w.dtype);
    if (z->work->packet) {
        start_packet(z, p);
        return;
    }
    z->k->copy(dev_at(p->data, (size_t)(z->shard * part) * size), store_at(&z->w, p->block, 0), (size_t)part * size);
    coll_allgather_start(z->layout->zero, p->data, part, size, &p->pending);
}

static void fill(const ZeroState *z, int block) {
    Place *p = &z->work->place[place_of(z, block)];
    if (p->block == block) return;
    land(z, p);
    p->block = block;
    start(z, p);
}

void zero_open(const ZeroState *z, int block, int next) {
    if (z->stage < 3 || z->work->all.data) return;
    fill(z, block);
    if (next >= 0 && place_of(z, next) != place_of(z, block)) fill(z, next);
    land(z, &z->work->place[place_of(z, block)]);
}

void zero_gather(const ZeroState *z) {
    struct ZeroWork *work = z->work;
    if (z->stage < 3 || work->all.data) return;
    store_create(&work->all, z->k, &z->map, z->w.dtype, false, MEM_COMM);
    for (int b = 0; b < z->map.blocks; b++) {
        Place whole = {.data = store_at(&work->all, b, 0), .block = b};
        start(z, &whole);
        land(z, &whole);
    }
}

void zero_release(const ZeroState *z) { store_destroy(&z->work->all); }

void zero_weights_changed(ZeroState *z) {
    z->version++;
    for (int p = 0; p < PLACES; p++) {
        coll_finish(&z->work->place[p].pending);
        z->work->place[p].block = -1;
    }
    z->work->in_packet = NULL;
    if (z->stage == 3 || z->map.shards == 1) return;
    for (int b = 0; b < z->map.blocks; b++)
        coll_allgather_dev(z->layout->zero, store_at(&z->w, b, 0), z->map.part[b], dtype_bytes(z->w.dtype));
}
