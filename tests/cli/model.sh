#!/usr/bin/env bash
# dschat-model as a user types it: import, export, inspect, HDF5's tools on the result, and what it says when it refuses.
set -u
model=bin/dschat-model
dir=build/tmp/cli-model
families=tests/refs/families
failed=0
rm -rf $dir
mkdir -p $dir

say() { # say NAME CODE: ok if the last command's exit code was the one expected
    if [ "$got" = "$2" ]; then echo "ok $1"
    else echo "FAIL $1: exit code $got, expected $2: $(tail -n 1 $dir/err)"; failed=1; fi
}
run() { "$@" >$dir/out 2>$dir/err; got=$?; }
check() { # check NAME CODE WORDS COMMAND...: exit code, and WORDS in what was said
    local name=$1 code=$2 words=$3
    shift 3
    run "$@"
    if [ "$got" = "$code" ] && ! cat $dir/out $dir/err | grep -qF -- "$words"; then
        echo "FAIL $name: does not say \"$words\": $(cat $dir/out $dir/err | tail -n 1)"; failed=1
    else say "$name" "$code"; fi
}
# The data of a safetensors file: what follows the header.
payload() { tail -c +$((9 + $(od -An -t u8 -N 8 "$1"))) "$1"; }

check model_help 0 "usage: dschat-model import" $model --help
check model_version 0 "dschat-model 0." $model --version
check model_no_command 2 "no command" $model
check model_unknown_command 2 "the closest is import" $model imprt a b
check model_unknown_dtype 2 "the closest is bf16" $model import a b --dtype bf61
check model_too_few 2 "arguments" $model import a
check model_unknown_option 2 "--help" $model inspect a --colour

for family in opt opt-postnorm gpt2 bloom gpt_neox llama llama-tied mistral qwen2 qwen3; do
    check model_import_$family 0 "2 layers" $model import $families/$family $dir/$family.h5
    check model_export_$family 0 "model for transformers, fp32" $model export $dir/$family.h5 $dir/$family
    check model_import_again_$family 0 "2 layers" $model import $dir/$family $dir/again.h5 --force
    run h5diff $dir/$family.h5 $dir/again.h5 /weights /weights
    say model_same_weights_$family 0
done
check model_import_file 0 "llama" $model import $families/llama/model.safetensors $dir/file.h5
check model_import_gguf 0 "llama" $model import tests/refs/gguf/llama-tied.gguf $dir/gguf.h5
run h5diff $dir/gguf.h5 $dir/llama-tied.h5 /weights /weights
say model_gguf_same_weights 0
check model_import_bf16 0 "bf16" $model import $families/qwen3 $dir/half.h5 --dtype bf16
check model_export_shards 0 "bf16" $model export $dir/half.h5 $dir/half --max-shard 0.00001
check model_import_shards 0 "bf16" $model import $dir/half $dir/half2.h5
check model_import_index 0 "bf16" $model import $dir/half/model.safetensors.index.json $dir/half3.h5
check model_export_one 0 "bf16" $model export $dir/half3.h5 $dir/one
cmp <(for f in $dir/half/*.safetensors; do payload "$f"; done) <(payload $dir/one/model.safetensors) >$dir/out 2>$dir/err
got=$?
say model_same_bytes 0

check model_inspect 0 "model.layers.0.self_attn.q_norm.weight" $model inspect $dir/qwen3.h5
check model_inspect_all 0 "model.layers.1.self_attn.q_norm.weight" $model inspect $dir/qwen3.h5 --all --verify
check model_inspect_hidden_layers 0 "and so on to layer 1" $model inspect $dir/qwen3.h5
check model_h5ls_bf16 0 "sign bit at 15" h5ls -v $dir/half.h5/weights/model.norm.weight
check model_h5ls 0 "model.embed_tokens.weight" h5ls -r $dir/llama.h5
run h5repack -f GZIP=6 -l CHUNK=32 $dir/qwen2.h5 $dir/packed.h5
check model_repacked 0 "hash it was written with" $model inspect $dir/packed.h5 --verify

check model_no_tokenizer 0 "  none" $model inspect $dir/llama.h5

if [ -e ../shared/data/gpt2-encoder.json ]; then
    cp -r $families/gpt2 $dir/with-tokens
    cp ../shared/data/gpt2-encoder.json $dir/with-tokens/encoder.json
    cp ../shared/data/gpt2-vocab.bpe $dir/with-tokens/vocab.bpe
    echo '{{ messages }}' >$dir/with-tokens/chat_template.jinja
    check model_import_tokenizer 0 "the tokenizer has ids up to 50256" $model import $dir/with-tokens $dir/tokens.h5
    check model_inspect_tokenizer 0 "50257 tokens" $model inspect $dir/tokens.h5
    check model_inspect_template 0 "{{ messages }}" $model inspect $dir/tokens.h5
    check model_export_tokenizer 0 "gpt2" $model export $dir/tokens.h5 $dir/tokens
    check model_import_tokenizer_again 0 "gpt2" $model import $dir/tokens $dir/tokens2.h5
    run h5diff $dir/tokens.h5 $dir/tokens2.h5 /tokenizer /tokenizer
    say model_same_tokenizer 0
    cmp $dir/with-tokens/chat_template.jinja $dir/tokens/chat_template.jinja
    got=$?
    say model_same_template 0
    echo '{"model": 7}' >$dir/with-tokens/tokenizer.json
    check model_bad_tokenizer 3 "tokenizer.json" $model import $dir/with-tokens $dir/x.h5
else
    echo "skip model_tokenizer: no ../shared/data"
fi

# Nobody's file is replaced unasked, and what is refused or fails leaves nothing behind.
check model_import_over 4 "again.h5: is there already; --force replaces it" $model import $families/opt $dir/again.h5
check model_import_force 0 "opt" $model import $families/opt $dir/again.h5 --force
mkdir -p $dir/again.shards && echo old >$dir/again.shards/00000.h5
check model_import_over_shards 4 "--force" $model import $families/opt $dir/again.h5
check model_import_force_shards 0 "opt" $model import $families/opt $dir/again.h5 --force
[ ! -e $dir/again.shards ] && got=0 || got=1
say model_import_force_no_shards 0
before=$(find $dir/qwen3 | sort | xargs ls -ld --time-style=full-iso)
check model_export_over_model 4 "there already" $model export $dir/opt.h5 $dir/qwen3
[ "$before" = "$(find $dir/qwen3 | sort | xargs ls -ld --time-style=full-iso)" ] && got=0 || got=1
say model_export_refused_changes_nothing 0
mkdir -p $dir/tok && echo '{}' >$dir/tok/tokenizer.json
check model_export_over_tokenizer 4 "tokenizer.json: is there already" $model export $dir/opt.h5 $dir/tok
[ "$(ls -A $dir/tok)" = tokenizer.json ] && got=0 || got=1
say model_export_refused_leaves_nothing 0
check model_export_into_file 4 "is not a folder" $model export $dir/opt.h5 $dir/opt.h5
mkdir -p $dir/notes && echo mine >$dir/notes/README
check model_export_beside 0 "opt" $model export $dir/opt.h5 $dir/notes
[ "$(cat $dir/notes/README)" = mine ] && [ -s $dir/notes/config.json ] && [ -z "$(find $dir/notes -name '*tmp*')" ] && got=0 || got=1
say model_export_beside_whole 0
for where in deep/er/new here; do # the file system is full in the middle of it: into a new folder, and into one that is there
    mkdir -p $dir/here
    run bash -c "trap '' XFSZ; ulimit -f 40; exec $model export $dir/opt.h5 $dir/$where"
    say model_export_full_$where 4
    [ ! -e $dir/deep ] && [ -z "$(ls -A $dir/here)" ] && got=0 || got=1
    say model_export_full_leaves_nothing_$where 0
done
check model_export_deep 0 "opt" $model export $dir/opt.h5 $dir/deep/er/new/
[ -s $dir/deep/er/new/config.json ] && got=0 || got=1
say model_export_deep_there 0

# generation_config.json goes through as it came; a chat template also out of tokenizer_config.json, as text or as a list.
cp -r $families/llama $dir/chatty
printf '{"temperature": 0.6,\n "eos_token_id": [2, 7]}\n' >$dir/chatty/generation_config.json
printf '{"chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": "{{ messages[0] }}"}]}' >$dir/chatty/tokenizer_config.json
check model_import_chatty 0 "llama" $model import $dir/chatty $dir/chatty.h5
check model_export_chatty 0 "llama" $model export $dir/chatty.h5 $dir/chatty2
cmp $dir/chatty/generation_config.json $dir/chatty2/generation_config.json && [ "$(cat $dir/chatty2/chat_template.jinja)" = '{{ messages[0] }}' ]
got=$?
say model_same_generation 0
echo '[1]' >$dir/chatty/generation_config.json
check model_bad_generation 3 "generation_config.json: expected a JSON object" $model import $dir/chatty $dir/x.h5

check model_missing_file 4 "cannot open" $model import $dir/nowhere.safetensors $dir/x.h5
check model_empty_folder 4 "neither" $model import tests/cli $dir/x.h5
check model_export_over 4 "there already" $model export $dir/qwen3.h5 $dir/qwen3
check model_not_hdf5 3 "" $model inspect tests/cli/model.sh
mkdir -p $dir/bad
cp $families/llama/* $dir/bad
head -c 5000 $families/llama/model.safetensors >$dir/bad/model.safetensors
check model_truncated 3 "model.safetensors" $model import $dir/bad $dir/x.h5
cp $families/llama/model.safetensors $dir/bad
sed 's/"silu"/"quick_gelu"/' $families/llama/config.json >$dir/bad/config.json
check model_unknown_act 3 '"hidden_act" is "quick_gelu"' $model import $dir/bad $dir/x.h5
rm $dir/bad/model.safetensors
echo '{"weight_map": {"a": "../llama/model.safetensors"}}' >$dir/bad/model.safetensors.index.json
check model_index_outside 3 "not a plain file name" $model import $dir/bad $dir/x.h5
head -c 1000 tests/refs/gguf/llama-tied.gguf >$dir/cut.gguf
check model_gguf_truncated 3 "cut.gguf" $model import $dir/cut.gguf $dir/x.h5
[ ! -e $dir/x.h5 ] && got=0 || got=1
say model_refused_leaves_nothing 0
exit $failed
