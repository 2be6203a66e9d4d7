// chat.h: a conversation -> token ids, and which of them are answers. Not collective.
//
// A template is seven strings around the turns. Special tokens in them are recognised, those in the turns' texts never:
// a user who types <|im_end|> gets letters. {bos}, {eos} stand for the tokenizer's tokens, {bos?} for bos where the
// tokenizer itself adds one. A stretch of text between two special tokens is encoded as a whole, but for one cut: where
// an assistant's answer begins. So the prompt's tokens are a prefix of prompt + answer's, which chat_encode verifies.
// Blanks at the end of the assistant's prefix belong to the answer, since words carry their blank in front
// ("\n\nAssistant: " -> prompt "...Assistant:", answer " Yes").
#ifndef DS_CHAT_H
#define DS_CHAT_H

#include "token/bpe.h"

// NULL is "".
typedef struct {
    const char *begin; // of the conversation
    const char *system_prefix, *system_suffix;
    const char *user_prefix, *user_suffix;
    const char *assistant_prefix;
    const char *assistant_suffix;  // its first special token ends an answer and must be there
    const char *user_after_system; // instead of user_prefix right after a system turn; NULL: the same
} ChatRoles;

// A template as files keep it: its name and its strings by field (NULL: as in ChatRoles). {0} is none. Owner: caller,
// chat_text_free.
enum { CHAT_FIELDS = 8 };
typedef struct {
    char *name;
    char *field[CHAT_FIELDS];
} ChatText;

typedef enum { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT } ChatRole;

typedef struct {
    ChatRole role;
    const char *text;
    int64_t n; // bytes
} ChatTurn;

// Ids, and the answers among them: answer i is id[span[2 i]] .. id[span[2 i + 1] - 1], its end marker included, what
// the template writes after that not. {0} is an empty one. Owner: caller, chat_tokens_free.
typedef struct {
    TokIds ids;
    int64_t *span; // [2 * spans]
    int64_t spans, room;
} ChatTokens;

typedef struct Chat Chat;

// The templates by name: hh, chatml, llama2, llama3, plain. *n entries.
const char *const *chat_names(int *n);

// The strings of the template `name`. DS_ERR_PARAMS with the closest name.
Err chat_roles(const char *name, ChatRoles *roles);

// The name of field 0 .. CHAT_FIELDS - 1 of a template in files: begin, system_prefix, ...
const char *chat_field(int i);

// Copies name and strings. Owner: caller.
ChatText chat_text(const char *name, const ChatRoles *roles);
void chat_text_free(ChatText *t);

// The strings as views of t.
ChatRoles chat_text_roles(const ChatText *t);

// The template for Hugging Face's tokenizers, in Jinja: special tokens as their text, the rest as it is; answers are
// asked for without the blanks that belong to them. adds_bos: {bos?} is a token. Owner: caller, mem_free.
char *chat_jinja(const ChatRoles *roles, bool adds_bos);

// The system message that the Jinja template `jinja` of a model writes by itself before a conversation that has none,
// where it stands there as plain text between these strings; NULL: none. Owner: caller, mem_free.
char *chat_own_system(const char *jinja, const ChatRoles *roles);

// "system"; "user", "human"; "assistant", "gpt". False if it is none of them.
bool chat_role_parse(const char *word, ChatRole *role);

// A template bound to a tokenizer. name: for messages. DS_ERR_PARAMS if the tokenizer lacks a special token that the
// template needs. t must outlive it. Owner: caller, chat_destroy (which accepts NULL).
Err chat_create(const char *name, const ChatRoles *roles, const Tokenizer *t, Chat **out);
void chat_destroy(Chat **c);

// The token that ends an answer.
int32_t chat_stop_id(const Chat *c);

// The blanks with which every answer begins, as the template moved them ("" or " "): to be taken off an answer that is
// shown.
const char *chat_lead(const Chat *c);

// Replaces *out. open: after the last turn comes the assistant's prefix, so a model can answer (a prompt). DS_ERR_DATA
// for a role out of range; DS_ERR_BUG if a prompt is no prefix.
Err chat_encode(const Chat *c, const ChatTurn *turns, int64_t n, bool open, ChatTokens *out);
void chat_tokens_free(ChatTokens *x);

#endif
