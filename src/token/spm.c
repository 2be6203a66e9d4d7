// spm.c: reads SentencePiece's tokenizer.model: a protobuf message, of which the fields that matter here are
//   1 piece { 1 text, 2 score (float), 3 type }        2 trainer { 3 model_type, 24 blank_as_suffix, 40-43 unk, bos,
//   eos, pad } 3 normalizer { 1 name, 2 charsmap, 3 add_dummy_prefix, 4 remove_extra_blanks, 5 escape_blanks }
// No length is believed: a field ends inside the message that holds it, or the file is refused.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "token/tok_load.h"

typedef struct {
    const char *start, *p, *end; // of a message; start: of the file, for messages
    const char *what;
} Reader;

typedef struct {
    uint32_t number;
    int wire;       // 0 varint, 1 eight bytes, 2 a string or message, 5 four bytes
    uint64_t value; // wires 0, 1 and 5
    const char *s;  // wire 2
    int64_t n;
} Field;

typedef struct {
    TokStr *text;
    int64_t *type;
    float *score;
    int64_t n, room;
    int64_t model_type, ends[4]; // unk, bos, eos, pad
    bool suffix, add_prefix, remove_extra, escape, charsmap;
} Spm;

static Err read_varint(Reader *r, uint64_t *value) {
    const char *began = r->p;
    *value = 0;
    for (int shift = 0; shift < 64 && r->p < r->end; shift += 7) {
        const unsigned char c = (unsigned char)*r->p++;
        if (shift == 63 && c > 1) break;
        *value |= (uint64_t)(c & 0x7F) << shift;
        if (!(c & 0x80)) return DS_OK;
    }
    return err_set(DS_ERR_DATA, "%s: byte %lld: a number does not end", r->what, (long long)(began - r->start));
}

static Err read_field(Reader *r, Field *f) {
    Err err = DS_OK;
    const char *began = r->p;
    uint64_t tag, n = 0;
    DS_TRY(read_varint(r, &tag));
    *f = (Field){.number = (uint32_t)(tag >> 3), .wire = (int)(tag & 7)};
    DS_CHECK(tag >> 3 > 0 && tag >> 3 <= 0x1FFFFFFF && (f->wire <= 2 || f->wire == 5), DS_ERR_DATA,
             "%s: byte %lld: not a field of a SentencePiece model", r->what, (long long)(began - r->start));
    if (f->wire == 0) {
        DS_TRY(read_varint(r, &f->value));
        goto done;
    }
    if (f->wire == 2) DS_TRY(read_varint(r, &n));
    else n = f->wire == 1 ? 8 : 4;
    DS_CHECK(n <= (uint64_t)(r->end - r->p), DS_ERR_DATA, "%s: byte %lld: field %u of %llu bytes, %lld are there",
             r->what, (long long)(began - r->start), f->number, (unsigned long long)n, (long long)(r->end - r->p));
    if (f->wire != 2)
        for (uint64_t i = 0; i < n; i++) f->value |= (uint64_t)(unsigned char)r->p[i] << 8 * i;
    f->s = r->p;
    f->n = (int64_t)n;
    r->p += n;
done:
    return err;
}

static Reader inside(const Reader *r, const Field *f) { return (Reader){r->start, f->s, f->s + f->n, r->what}; }

static Err expect_wire(const Reader *r, const Field *f, int wire, const char *name) {
    if (f->wire == wire) return DS_OK;
    return err_set(DS_ERR_DATA, "%s: byte %lld: %s has wire type %d, expected %d", r->what,
                   (long long)(r->p - r->start), name, f->wire, wire);
}

static void grow(Spm *m) {
    if (m->n < m->room) return;
    const int64_t room = ds_max(1024, 2 * m->room);
    m->text = mem_grow(m->text, m->n, room, sizeof *m->text);
    m->type = mem_grow(m->type, m->n, room, sizeof *m->type);
    m->score = mem_grow(m->score, m->n, room, sizeof *m->score);
    m->room = room;
}

static Err read_piece(Reader r, Spm *m) {
    Err err = DS_OK;
    Field f;
    grow(m);
    const int64_t i = m->n++;
    m->text[i] = (TokStr){"", 0};
    m->type[i] = TOK_NORMAL;
    while (r.p < r.end) {
        DS_TRY(read_field(&r, &f));
        if (f.number == 1) {
            DS_TRY(expect_wire(&r, &f, 2, "a token's text"));
            m->text[i] = (TokStr){f.s, f.n};
        } else if (f.number == 2) {
            DS_TRY(expect_wire(&r, &f, 5, "a token's score"));
            const uint32_t bits = (uint32_t)f.value;
            memcpy(&m->score[i], &bits, sizeof bits);
        } else if (f.number == 3) {
            DS_TRY(expect_wire(&r, &f, 0, "a token's type"));
            DS_CHECK(f.value >= TOK_NORMAL && f.value <= TOK_BYTE && f.value != TOK_UNUSED, DS_ERR_DATA,
                     "%s: token %lld is of type %llu, expected 1 .. 4 or 6", r.what, (long long)i,
                     (unsigned long long)f.value);
            m->type[i] = (int64_t)f.value;
        }
    }
    DS_CHECK(m->text[i].n > 0, DS_ERR_DATA, "%s: token %lld has no text", r.what, (long long)i);
done:
    return err;
}

static Err read_trainer(Reader r, Spm *m) {
    Err err = DS_OK;
    Field f;
    while (r.p < r.end) {
        DS_TRY(read_field(&r, &f));
        if (f.number != 3 && f.number != 24 && (f.number < 40 || f.number > 43)) continue;
        DS_TRY(expect_wire(&r, &f, 0, "a setting of the trainer"));
        if (f.number == 3) m->model_type = (int64_t)f.value;
        else if (f.number == 24) m->suffix = f.value != 0;
        else m->ends[f.number - 40] = (int64_t)f.value; // -1, stored in 64 bits: none
    }
done:
    return err;
}

static Err read_normalizer(Reader r, Spm *m) {
    Err err = DS_OK;
    Field f;
    while (r.p < r.end) {
        DS_TRY(read_field(&r, &f));
        if (f.number == 2) {
            DS_TRY(expect_wire(&r, &f, 2, "the character map"));
            m->charsmap = f.n > 0;
        } else if (f.number >= 3 && f.number <= 5) {
            DS_TRY(expect_wire(&r, &f, 0, "a setting of the normalizer"));
            *(f.number == 3 ? &m->add_prefix : f.number == 4 ? &m->remove_extra : &m->escape) = f.value != 0;
        }
    }
done:
    return err;
}

static Err check(const Spm *m, const char *what) {
    static const char *const names[] = {"", "unigram", "BPE", "word", "char"};
    Err err = DS_OK;
    DS_CHECK(m->n > 0, DS_ERR_DATA, "%s: has no tokens", what);
    DS_CHECK(m->model_type == 2, DS_ERR_DATA, "%s: a SentencePiece model of type %s is not read, only BPE", what,
             m->model_type >= 1 && m->model_type <= 4 ? names[m->model_type] : "unknown");
    DS_CHECK(!m->charsmap && !m->remove_extra && m->escape && !m->suffix, DS_ERR_DATA,
             "%s: its normalizer changes texts (%s), which is not known here; only identity is", what,
             m->charsmap       ? "character map"
             : m->remove_extra ? "remove_extra_whitespaces"
             : m->suffix       ? "treat_whitespace_as_suffix"
                               : "escape_whitespaces off");
done:
    return err;
}

static Err read_model(Reader r, Spm *m) {
    Err err = DS_OK;
    Field f;
    while (r.p < r.end) {
        DS_TRY(read_field(&r, &f));
        if (f.number < 1 || f.number > 3) continue;
        DS_TRY(expect_wire(&r, &f, 2, "a message"));
        if (f.number == 1) DS_TRY(read_piece(inside(&r, &f), m));
        else if (f.number == 2) DS_TRY(read_trainer(inside(&r, &f), m));
        else DS_TRY(read_normalizer(inside(&r, &f), m));
    }
    DS_TRY(check(m, r.what));
done:
    return err;
}

Err load_sentencepiece(const char *path, Tokenizer **out) {
    Err err = DS_OK;
    FileMap map = {0};
    json_t *config = NULL;
    Spm m = {.model_type = 1, .ends = {0, 1, 2, -1}, .add_prefix = true, .remove_extra = true, .escape = true};
    *out = NULL;
    DS_TRY(file_map(path, &map));
    DS_CHECK(map.bytes <= TOK_MAX_FILE, DS_ERR_DATA, "%s: %zu bytes, at most %zu are read", path, map.bytes,
             TOK_MAX_FILE);
    DS_TRY(read_model((Reader){map.data, map.data, map.data + map.bytes, path}, &m));
    DS_TRY(load_config(path, &config));
    const TokArrays a = {.model = "llama",
                         .tokens = m.text,
                         .types = m.type,
                         .scores = m.score,
                         .n_tokens = m.n,
                         .unk = m.ends[0],
                         .bos = m.ends[1],
                         .eos = m.ends[2],
                         .pad = m.ends[3],
                         .add_bos = -1,
                         .add_eos = -1,
                         .add_space_prefix = m.add_prefix};
    DS_TRY(load_arrays(&a, config, path, out));
done:
    json_decref(config);
    mem_free(m.text);
    mem_free(m.type);
    mem_free(m.score);
    file_unmap(&map);
    return err;
}
