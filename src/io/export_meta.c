// export_meta.c: see export_meta.h.
#include "io/export_meta.h"

#include <string.h>

#include "base/mem.h"
#include "token/bpe.h"

static Err write_file(const char *dir, const char *name, const char *data, size_t bytes) {
    char *path = mem_printf("%s/%s", dir, name);
    Err err = file_write_atomic(path, data, bytes);
    mem_free(path);
    return err;
}

static Err write_tokenizer(const ModelFile *model, const char *dir, ExportTokens *ids) {
    Err err = DS_OK;
    Tokenizer *t = NULL;
    char *blob = NULL;
    size_t bytes = 0;
    DS_TRY(modelfile_tokenizer(model, &blob, &bytes));
    if (!blob) goto done;
    DS_TRY(tok_load_blob(blob, bytes, "tokenizer", &t));
    DS_TRY(tok_export_hf(t, dir));
    *ids = (ExportTokens){tok_bos(t), tok_eos(t)};
done:
    tok_free(&t);
    mem_free(blob);
    return err;
}

Err export_meta_write(const ModelFile *model, const char *dir, ExportTokens *ids) {
    Err err = DS_OK;
    char *text = NULL;
    *ids = (ExportTokens){-1, -1};
    DS_TRY(modelfile_text(model, "chat_template", &text));
    if (text) DS_TRY(write_file(dir, "chat_template.jinja", text, strlen(text)));
    DS_TRY(write_tokenizer(model, dir, ids));
done:
    mem_free(text);
    return err;
}
