// export_meta.c: see export_meta.h.
#include "io/export_meta.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "token/chat.h"

static Err write_file(const char *dir, const char *name, const char *data, size_t bytes) {
    char *path = mem_printf("%s/%s", dir, name);
    Err err = file_write_atomic(path, data, bytes);
    mem_free(path);
    return err;
}

static Err write_text(const char *dir, const char *name, const char *text) {
    return text ? write_file(dir, name, text, strlen(text)) : DS_OK;
}

// ---- of others: as they came ----

// *there: what it brought; what it did not bring is not made up.
static Err write_theirs(const ModelFile *model, const char *dir, bool *there) {
    Err err = DS_OK;
    char *jinja = NULL, *generation = NULL;
    DS_TRY(modelfile_text(model, "chat_template", &jinja));
    DS_TRY(modelfile_text(model, "generation_config", &generation));
    DS_TRY(write_text(dir, "chat_template.jinja", jinja));
    DS_TRY(write_text(dir, "generation_config.json", generation));
    *there = jinja || generation;
done:
    mem_free(jinja);
    mem_free(generation);
    return err;
}

// ---- of a model trained here ----

static Err read_template(const ModelFile *model, ChatText *text) {
    Err err = DS_OK;
    DS_TRY(modelfile_text(model, "template", &text->name));
    for (int i = 0; i < CHAT_FIELDS; i++) DS_TRY(modelfile_text(model, chat_field(i), &text->field[i]));
done:
    return err;
}

// Both the token that ends an answer and the tokenizer's own end stop generation.
static Err write_generation(const char *dir, const Tokenizer *t, int32_t stop) {
    const bool two = tok_eos(t) >= 0 && tok_eos(t) != stop;
    json_t *ends = two ? json_pack("[i, i]", stop, tok_eos(t)) : json_integer(stop), *root = json_object();
    if (tok_bos(t) >= 0) json_object_set_new(root, "bos_token_id", json_integer(tok_bos(t)));
    json_object_set_new(root, "eos_token_id", ends);
    json_object_set_new(root, "pad_token_id", json_integer(tok_pad(t) >= 0 ? tok_pad(t) : stop));
    char *text = json_dumps(root, JSON_INDENT(2));
    Err err =
        text ? write_text(dir, "generation_config.json", text) : err_set(DS_ERR_BUG, "%s: cannot print JSON", dir);
    free(text); // lint: jansson's memory
    json_decref(root);
    return err;
}

static Err write_ours(const ModelFile *model, const char *dir, const Tokenizer *t) {
    Err err = DS_OK;
    ChatText text = {0};
    Chat *chat = NULL;
    char *jinja = NULL;
    DS_TRY(read_template(model, &text));
    if (!text.name) goto done;
    ChatRoles roles = chat_text_roles(&text);
    DS_TRY(chat_create(text.name, &roles, t, &chat));
    jinja = chat_jinja(&roles, tok_adds_bos(t));
    DS_TRY(write_text(dir, "chat_template.jinja", jinja));
    DS_TRY(write_generation(dir, t, chat_stop_id(chat)));
done:
    mem_free(jinja);
    chat_destroy(&chat);
    chat_text_free(&text);
    return err;
}

// ---- all ----

Err export_meta_write(const ModelFile *model, const char *dir, ExportTokens *ids) {
    Err err = DS_OK;
    Tokenizer *t = NULL;
    char *blob = NULL;
    size_t bytes = 0;
    bool theirs = false;
    *ids = (ExportTokens){-1, -1};
    DS_TRY(write_theirs(model, dir, &theirs));
    DS_TRY(modelfile_tokenizer(model, &blob, &bytes));
    if (!blob) goto done;
    DS_TRY(tok_load_blob(blob, bytes, "tokenizer", &t));
    DS_TRY(tok_export_hf(t, dir));
    *ids = (ExportTokens){tok_bos(t), tok_eos(t)};
    if (!theirs) DS_TRY(write_ours(model, dir, t));
done:
    tok_free(&t);
    mem_free(blob);
    return err;
}
