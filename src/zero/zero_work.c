// zero_work.c: weights that are not whole in place (stage 3, or in host memory) come into places: the embedding's, some
// for layers in turn, the head's. Stage 2 has three for gradients. What came stays valid until the place is taken or
// the weights change.
#include "zero/zero_work.h"

#include "base/mem.h"
#include "comm/coll.h"

enum { LAYERS = 2 }; // that are whole at a time: one is used, the next one travels

typedef struct {
    Dev *data;
    int block; // -1: none
    CollPending pending;
} Place; // a block that is whole, or about to be

struct ZeroWork {
    const Kernels *k;
    Place embed, head, *layer; // layer: [n_layers]
    int n_layers;
    Dev *grad_embed, *grad_layer, *grad_head; // stages 2, 3
    Store all;                                // between zero_gather and zero_release
    Dev *packet;      // weights that travel quantized: room for the parts of the largest block; else NULL
    Place *in_packet; // whose they are, until they have landed; NULL: nobody's
};

static bool is_layer(const ZeroState *z, int block) { return block > 0 && block < z->map.blocks - 1; }

static Place *place_of(const ZeroState *z, int block) {
    struct ZeroWork *work = z->work;
    if (is_layer(z, block)) return &work->layer[block % work->n_layers];
    return block == 0 ? &work->embed : &work->head;
}

// Bytes of a block after padding, of the largest layer where block is one.
static size_t room(const ZeroState *z, const ShardMap *map, int block, size_t elem_bytes) {
    int64_t most = map->start[block + 1] - map->start[block];
    for (int b = 1; is_layer(z, block) && b < map->blocks - 1; b++)
        most = ds_max(most, map->start[b + 1] - map->start[b]);
    return (size_t)most * elem_bytes;
}

static void create_place(const ZeroState *z, Place *p, int block) {
    *p = (Place){.data = z->k->mem_create(room(z, &z->map, block, dtype_bytes(z->w.dtype)), MEM_COMM), .block = -1};
}

static void destroy_place(const Kernels *k, Place *p) {
    coll_finish(&p->pending);
    if (p->data) k->mem_destroy(p->data);
}

// Places for so many layers, at least those that take turns, at most all there are.
static int layers_wanted(const ZeroState *z, int layers) {
    return (int)ds_min(ds_max(layers, LAYERS), z->map.blocks - 2);
}

static void create_layers(const ZeroState *z, struct ZeroWork *work, int n) {
    work->n_layers = n;
    work->layer = MEM_NEW(Place, n);
    for (int i = 0; i < n && zero_in_places(z); i++) create_place(z, &work->layer[i], 1);
}

static void destroy_layers(struct ZeroWork *work) {
    for (int i = 0; i < work->n_layers; i++) destroy_place(work->k, &work->layer[i]);
    MEM_FREE(work->layer);
}

static Dev *create_packet(const ZeroState *z) {
    int64_t most = 0;
    for (int b = 0; b < z->map.blocks; b++) most = ds_max(most, z->map.start[b + 1] - z->map.start[b]);
    return z->k->mem_create(kernels_quant_bytes(z->quant.weight_bits, most), MEM_COMM);
}

static Dev *create_grads(const ZeroState *z, int block) {
    return z->k->mem_create(room(z, &z->grad_map, block, sizeof(float)), MEM_GRADIENTS);
}

struct ZeroWork *zero_work_create(const ZeroState *z) {
    struct ZeroWork *work = MEM_NEW(struct ZeroWork, 1);
    const int head = z->map.blocks - 1;
    work->k = z->k;
    if (zero_in_places(z)) {
        create_place(z, &work->embed, 0);
        create_place(z, &work->head, head);
    }
    create_layers(z, work, layers_wanted(z, LAYERS));
    if (z->trained && !z->g.data) {
        work->grad_embed = create_grads(z, 0);
        work->grad_layer = create_grads(z, 1);
        work->grad_head = create_grads(z, head);
    }
    if (z->stage == 3 && z->quant.weight_bits) work->packet = create_packet(z);
    return work;
}

void zero_work_destroy(struct ZeroWork **pw) {
    struct ZeroWork *work = *pw;
    if (!work) return;
    Dev *const list[] = {work->grad_embed, work->grad_layer, work->grad_head, work->packet};
    destroy_place(work->k, &work->embed);
    destroy_place(work->k, &work->head);
    destroy_layers(work);
    for (int i = 0; i < DS_COUNT(list); i++)
        if (list[i]) work->k->mem_destroy(list[i]);
    store_destroy(&work->all);
    MEM_FREE(*pw);
}

Dev *zero_work_weights(const ZeroState *z, int block) {
    struct ZeroWork *work = z->work;
    if (work->all.data) return store_at(&work->all, block, 0);
    const Place *p = place_of(z, block);
    if (p->block != block) err_fatal("the weights of block %d are used, those of block %d are open", block, p->block);
    return p->data;
}

Dev *zero_work_grads(const ZeroState *z, int block) {
    const struct ZeroWork *work = z->work;
    if (z->g.data) return store_at(&z->g, block, 0);
    return is_layer(z, block) ? work->grad_layer : block == 0 ? work->grad_embed : work->grad_head;
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
    Dev *own = dev_at(p->data, (size_t)(z->shard * part) * size);
    if (z->w.host) z->k->copy_in(own, store_host(&z->w, p->block, 0), (size_t)part * size);
    else z->k->copy(own, store_at(&z->w, p->block, 0), (size_t)part * size);
    if (z->stage == 3) coll_allgather_start(z->layout->zero, p->data, part, size, &p->pending);
}

static void fill(const ZeroState *z, int block) {
    Place *p = place_of(z, block);
    if (p->block == block) return;
    land(z, p);
    p->block = block;
    start(z, p);
}

void zero_prefetch(const ZeroState *z, int block) {
    if (zero_in_places(z) && !z->work->all.data) fill(z, block);
}

void zero_open(const ZeroState *z, int block, int next) {
    if (!zero_in_places(z) || z->work->all.data) return;
    fill(z, block);
    if (next >= 0 && place_of(z, next) != place_of(z, block)) fill(z, next);
    land(z, place_of(z, block));
}

void zero_widen(const ZeroState *z, int layers) {
    struct ZeroWork *work = z->work;
    const int n = layers_wanted(z, layers);
    if (!zero_in_places(z) || n == work->n_layers) return;
    if (work->in_packet) land(z, work->in_packet);
    destroy_layers(work);
    create_layers(z, work, n);
}

void zero_gather(const ZeroState *z) {
    struct ZeroWork *work = z->work;
    if (!zero_in_places(z) || work->all.data) return;
    store_create(&work->all, z->k, &z->map, z->w.dtype, false, MEM_COMM);
    for (int b = 0; b < z->map.blocks; b++) {
        Place whole = {.data = store_at(&work->all, b, 0), .block = b};
        start(z, &whole);
        land(z, &whole);
    }
}

void zero_release(const ZeroState *z) { store_destroy(&z->work->all); }

static void forget(Place *p) {
    coll_finish(&p->pending);
    p->block = -1;
}

void zero_weights_changed(ZeroState *z) {
    struct ZeroWork *work = z->work;
    z->version++;
    forget(&work->embed);
    forget(&work->head);
    for (int i = 0; i < work->n_layers; i++) forget(&work->layer[i]);
    work->in_packet = NULL;
    if (zero_in_places(z) || z->map.shards == 1) return;
    for (int b = 0; b < z->map.blocks; b++)
        coll_allgather_dev(z->layout->zero, store_at(&z->w, b, 0), z->map.part[b], dtype_bytes(z->w.dtype));
}
