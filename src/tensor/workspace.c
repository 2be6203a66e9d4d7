// workspace.c: see workspace.h.
#include "tensor/workspace.h"

void workspace_need(Workspace *a, size_t bytes) {
    if (bytes <= a->bytes) return;
    if (a->data) a->k->mem_destroy(a->data);
    a->data = a->k->mem_create(bytes, MEM_ACTIVATIONS);
    a->bytes = bytes;
}

void workspace_destroy(Workspace *a) {
    if (a->data) a->k->mem_destroy(a->data);
    *a = (Workspace){.k = a->k};
}
