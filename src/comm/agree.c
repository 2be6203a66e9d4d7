// agree.c: the codes are gathered; if any failed, the lowest failing rank's words are broadcast.
#include "comm/agree.h"

#include <string.h>

#include "base/mem.h"
#include "comm/coll.h"

enum { TEXT = 2048 };

Err agree_err(const Group *g, Err err) {
    int size = group_size(g), first = -1, failed = 0;
    int64_t mine = err, *codes = MEM_NEW(int64_t, size);
    coll_allgather(g, &mine, sizeof mine, codes);
    for (int r = size - 1; r >= 0; r--)
        if (codes[r]) first = r, failed++;
    if (first >= 0) {
        char text[TEXT] = "";
        strncpy(text, err_text(), TEXT - 1);
        coll_bcast(g, text, TEXT, first);
        err_clear();
        err = (Err)codes[first];
        if (failed == size) err_set(err, "%s", text);
        else err_set(err, "rank %d: %s", first, text);
    }
    mem_free(codes);
    return err;
}

Err agree_root(const Group *g, Err err) {
    int64_t code = err;
    coll_bcast(g, &code, sizeof code, 0);
    if (!code) return DS_OK;
    char text[TEXT] = "";
    if (group_rank(g) == 0) strncpy(text, err_text(), TEXT - 1);
    coll_bcast(g, text, TEXT, 0);
    err_clear();
    return err_set((Err)code, "%s", text);
}

bool agree_any(const Group *g, bool flag) {
    int64_t x = flag;
    coll_max_i64(g, &x, 1);
    return x != 0;
}
