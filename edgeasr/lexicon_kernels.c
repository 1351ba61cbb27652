// The beam of lexicon_search.py: the frames of a chunk in one call, the same prefixes in the same order. Sums and
// products are those of the numpy there, one after the other, so that scores differ only where exponentials and
// logarithms of the C library are rounded otherwise than numpy's.
//
// Order decides between equals. Candidates: those that stayed, then longer ones, then words, each kind by the prefix
// that it comes from, then by phone, then as the lexicon lists its words. Of candidates that are one prefix the
// likeliest stands for all, the first of equals, and where it stands is their place. Where too many are as likely as
// the last one that is kept, the first of these are. Prefixes stay in that order.

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EDGEASR_MAX_PHONES 64 // a set of them is a bit each of an integer
#define EDGEASR_LEAST_LOG_PROB -30.0
#define EDGEASR_ROOT 0
// In the place of a word.
#define EDGEASR_STAYS UINT32_MAX
#define EDGEASR_LONGER (UINT32_MAX - 1)

// Of ngram_tables.py.
#define EDGEASR_BLOCK 16
#define EDGEASR_WORD_BITS 16
#define EDGEASR_KEY_SHIFT 12
#define EDGEASR_LEVEL_BITS 10
#define EDGEASR_LEVEL_MASK ((1u << EDGEASR_LEVEL_BITS) - 1)
#define EDGEASR_NOT_FOUND (1u << EDGEASR_KEY_SHIFT)
#define EDGEASR_NOT_FOLLOWED (1u << (EDGEASR_KEY_SHIFT - 1))
#define EDGEASR_EMPTY 0
#define EDGEASR_RANGES 1024 // histories that are remembered during a call
#define EDGEASR_SPECIAL_WORDS 3

typedef enum { EDGEASR_OK = 0, EDGEASR_FULL = 1, EDGEASR_DAMAGED = 2 } edgeasr_status_t;

// edgeasr.lexicon.Lexicon, and what prefixes gain at its nodes
typedef struct {
    const uint64_t *phones_next; // (nodes,)
    const int32_t *first_child;  // (nodes,)
    const uint8_t *depth;        // (nodes,)
    const int32_t *first_word;   // (nodes + 1,)
    const uint16_t *words;       // (words,)
    const float *best, *gain;    // (nodes,)
    size_t num_phones, num_nodes, num_words;
} edgeasr_lexicon_t;

// edgeasr.ngram_tables.NgramTables
typedef struct {
    const uint32_t *entries;     // (blocks, EDGEASR_BLOCK)
    const int64_t *first_keys;   // (blocks,)
    const uint16_t *followed;    // (blocks,)
    const int32_t *first_number; // (blocks,)
    const uint32_t *histories;   // (histories,)
    const float *prob_levels, *backoff_levels;
    size_t num_blocks, num_histories, num_probs, num_backoffs, order;
} edgeasr_ngrams_t;

// edgeasr.hotwords.HotwordModel; without hotwords one state and no arcs
typedef struct {
    const int64_t *keys, *targets;  // (arcs,)
    const int64_t *parents;         // (states,)
    const double *earned, *pending; // (states,)
    size_t num_arcs, num_states, num_known;
    double scale;
    float rarest;
} edgeasr_phrases_t;

// edgeasr.lexicon_search.SearchConfig
typedef struct {
    double blank_penalty, token_beam, log_sure_blank;
    double least; // of the probability of the best, which others are dropped below
    size_t max_prefixes;
    float lm_weight;
} edgeasr_limits_t;

typedef struct {
    edgeasr_lexicon_t lexicon;
    edgeasr_ngrams_t ngrams;
    edgeasr_phrases_t phrases;
    edgeasr_limits_t limits;
} edgeasr_graph_t;

// A column of PrefixSearch.whole and PrefixSearch.parts
typedef struct {
    int64_t node, state, label, key, record, first, last;
    double blank, token, sounds, sound;
} edgeasr_prefix_t;

// edgeasr.lexicon_search.WordRecord
typedef struct {
    int64_t word, previous, first, last;
    double log_conf, log_odds;
} edgeasr_record_t;

// A prefix after a frame. blank, token: of all candidates that are this prefix, which one of them has; own: of it alone
typedef struct {
    uint32_t source, word; // which prefix it comes from; the word that it completes, EDGEASR_STAYS or EDGEASR_LONGER
    int64_t node, state, label, key;
    double blank, token, own;
} edgeasr_candidate_t;

// The blocks in which n-grams of a history are
typedef struct {
    uint32_t history, first, last;
} edgeasr_range_t;

// One stream, and what a call needs to work in, each with room for so many
typedef struct {
    edgeasr_prefix_t *prefixes, *others;
    edgeasr_candidate_t *candidates;
    edgeasr_record_t *records; // those that are new
    double *totals;
    uint32_t *slots; // twice as many; the room is a power of 2
    size_t room, num_prefixes, num_candidates, num_records;
    int64_t first_record; // number of the first that is new
    double behind;
} edgeasr_beam_t;

// lexicon_native.py makes room for them as numbers of 8 bytes.
_Static_assert(sizeof(edgeasr_prefix_t) == 11 * 8, "prefix");
_Static_assert(sizeof(edgeasr_candidate_t) == 8 * 8, "candidate");
_Static_assert(sizeof(edgeasr_record_t) == 6 * 8, "record");

// edgeasr.lexicon_search.Heard; tried: a bit for every phone
typedef struct {
    double log_probs[EDGEASR_MAX_PHONES], probs[EDGEASR_MAX_PHONES], best;
    uint64_t tried;
} edgeasr_heard_t;

static int is_within(int64_t index, uint64_t size)
{
    return index >= 0 && (uint64_t)index < size;
}

static double total_of(const edgeasr_candidate_t *candidate)
{
    return candidate->blank + candidate->token;
}

static void hear(const edgeasr_limits_t *limits, const double *log_probs, size_t num_phones, edgeasr_heard_t *heard)
{
    double weighed[EDGEASR_MAX_PHONES];
    heard->best = -INFINITY;
    for (size_t phone = 0; phone < num_phones; phone++) {
        const double log_prob = log_probs[phone] > EDGEASR_LEAST_LOG_PROB ? log_probs[phone] : EDGEASR_LEAST_LOG_PROB;
        heard->log_probs[phone] = log_prob;
        weighed[phone] = phone == 0 ? log_prob - limits->blank_penalty : log_prob;
        heard->probs[phone] = exp(weighed[phone]);
        heard->best = weighed[phone] > heard->best ? weighed[phone] : heard->best;
    }
    heard->tried = 0;
    if (heard->log_probs[0] <= limits->log_sure_blank)
        for (size_t phone = 1; phone < num_phones; phone++)
            heard->tried |= (uint64_t)(weighed[phone] > heard->best - limits->token_beam) << phone;
}

// Of blocks from one to another the last that begins with a key up to this one, or the first.
static uint32_t block_of(const edgeasr_ngrams_t *ngrams, uint32_t first, uint32_t last, int64_t key)
{
    const int64_t *keys = ngrams->first_keys + first;
    for (uint32_t count = last - first + 1; count > 1;) {
        const uint32_t half = count / 2;
        keys = keys[half] <= key ? keys + half : keys;
        count -= half;
    }
    return (uint32_t)(keys - ngrams->first_keys);
}

// Where the n-grams of a history are, looked up unless it was the last one that had its place.
// ranges: EDGEASR_RANGES, of histories that were looked up
static const edgeasr_range_t *range_of(const edgeasr_ngrams_t *ngrams, edgeasr_range_t *ranges, uint32_t history)
{
    edgeasr_range_t *range = &ranges[history % EDGEASR_RANGES];
    if (range->history != history) {
        const int64_t key = (int64_t)history << EDGEASR_WORD_BITS, next = key + (1 << EDGEASR_WORD_BITS);
        const uint32_t first = block_of(ngrams, 0, (uint32_t)ngrams->num_blocks - 1, key);
        *range = (edgeasr_range_t){history, first, block_of(ngrams, first, (uint32_t)ngrams->num_blocks - 1, next - 1)};
    }
    return range;
}

// Where an n-gram is in its block; EDGEASR_BLOCK for one that is not there.
static size_t place_of(const uint32_t *entries, int64_t key)
{
    const uint32_t wanted = (uint32_t)key << EDGEASR_KEY_SHIFT;
    uint32_t least = UINT32_MAX;
    size_t place = 0;
    for (size_t i = 0; i < EDGEASR_BLOCK; i++)
        least = (entries[i] ^ wanted) < least ? entries[i] ^ wanted : least;
    if (least >= EDGEASR_NOT_FOUND) // as most are: no place is looked for
        return EDGEASR_BLOCK;
    while ((entries[place] ^ wanted) != least)
        place++;
    return place;
}

// What a word is worth after a history, and the history after it (Katz 1987): it gets shorter until both are known.
static edgeasr_status_t score_ngram(const edgeasr_ngrams_t *ngrams, edgeasr_range_t *ranges, uint32_t history,
                                    uint32_t word, float *log_prob, int64_t *after)
{
    float backoff = 0.0f;
    int is_found = 0;

    *after = EDGEASR_EMPTY;
    for (size_t shorter = 0; shorter < ngrams->order; shorter++) {
        const int64_t key = (int64_t)history << EDGEASR_WORD_BITS | word;
        size_t block = word / EDGEASR_BLOCK; // where the n-gram of a word alone is
        if (history != EDGEASR_EMPTY) {
            const edgeasr_range_t *range = range_of(ngrams, ranges, history);
            block = block_of(ngrams, range->first, range->last, key);
        }
        if (block >= ngrams->num_blocks)
            return EDGEASR_DAMAGED;
        const uint32_t *entries = ngrams->entries + block * EDGEASR_BLOCK;
        const size_t place = place_of(entries, key);
        if (place < EDGEASR_BLOCK) {
            const uint32_t level = entries[place] & EDGEASR_LEVEL_MASK;
            if (level >= ngrams->num_probs)
                return EDGEASR_DAMAGED;
            if (!is_found)
                *log_prob = ngrams->prob_levels[level] + backoff;
            is_found = 1;
            if (!(entries[place] & EDGEASR_NOT_FOLLOWED)) {
                const uint32_t earlier = ngrams->followed[block] & ((1u << place) - 1);
                *after = (int64_t)ngrams->first_number[block] + __builtin_popcount(earlier);
                return is_within(*after, ngrams->num_histories) ? EDGEASR_OK : EDGEASR_DAMAGED;
            }
        }
        if (history == EDGEASR_EMPTY)
            break;
        const uint32_t link = ngrams->histories[history];
        if ((link & EDGEASR_LEVEL_MASK) >= ngrams->num_backoffs || link >> EDGEASR_LEVEL_BITS >= ngrams->num_histories)
            return EDGEASR_DAMAGED;
        backoff += ngrams->backoff_levels[link & EDGEASR_LEVEL_MASK];
        history = link >> EDGEASR_LEVEL_BITS;
    }
    return is_found ? EDGEASR_OK : EDGEASR_DAMAGED;
}

// The state that a word leads to from a state of the automaton by an arc that is listed there, or -1.
static int64_t target_of(const edgeasr_phrases_t *phrases, int64_t state, uint32_t word)
{
    const int64_t key = state << EDGEASR_WORD_BITS | word;
    size_t first = 0, last = phrases->num_arcs;
    while (first < last) {
        const size_t middle = first + (last - first) / 2;
        if (phrases->keys[middle] < key)
            first = middle + 1;
        else
            last = middle;
    }
    return first < phrases->num_arcs && phrases->keys[first] == key ? phrases->targets[first] : -1;
}

// What a word earns after a state of the automaton, and the state after it.
static double step_phrases(const edgeasr_phrases_t *phrases, int64_t state, uint32_t word, int64_t *after)
{
    const int64_t target = target_of(phrases, state, word);
    *after = target >= 0 ? target : target_of(phrases, 0, word);
    *after = *after >= 0 ? *after : 0;
    const int goes_on = target >= 0 && phrases->parents[target] == state;
    return phrases->earned[*after] - (goes_on ? phrases->earned : phrases->pending)[state];
}

// As WordModel.score, of a language model alone or with hotwords.
static edgeasr_status_t score_word(const edgeasr_graph_t *graph, edgeasr_range_t *ranges, int64_t state, uint32_t word,
                                   float *log_prob, int64_t *after)
{
    const edgeasr_phrases_t *phrases = &graph->phrases;
    const int64_t num_states = (int64_t)phrases->num_states;
    const int is_new = phrases->num_arcs && word >= phrases->num_known;
    int64_t phrase;

    const edgeasr_status_t status = score_ngram(&graph->ngrams, ranges, (uint32_t)(state / num_states),
                                                (is_new ? 0 : word) + EDGEASR_SPECIAL_WORDS, log_prob, after);
    if (status != EDGEASR_OK || !phrases->num_arcs)
        return status;
    if (is_new) {
        *log_prob = phrases->rarest;
        *after = EDGEASR_EMPTY;
    }
    const double gained = step_phrases(phrases, state % num_states, word, &phrase);
    *log_prob = (float)(*log_prob + gained * phrases->scale);
    *after = *after * num_states + phrase;
    return EDGEASR_OK;
}

// Where a prefix can be: WordGraph.num_places of each state
static int64_t key_of(const edgeasr_lexicon_t *lexicon, int64_t state, int64_t place)
{
    return state * (int64_t)(lexicon->num_nodes + lexicon->num_phones) + place;
}

// The present prefixes as they stay. returns: the highest probability of one
static double stay(edgeasr_beam_t *beam, const edgeasr_heard_t *heard)
{
    double best = 0.0;
    for (size_t i = 0; i < beam->num_prefixes; i++) {
        const edgeasr_prefix_t *prefix = &beam->prefixes[i];
        edgeasr_candidate_t *candidate = &beam->candidates[i];
        *candidate = (edgeasr_candidate_t){(uint32_t)i, EDGEASR_STAYS, prefix->node, prefix->state, prefix->label,
                                           prefix->key, 0.0, 0.0, 0.0};
        candidate->blank = (prefix->blank + prefix->token) * heard->probs[0];
        candidate->token = prefix->token * heard->probs[prefix->label];
        candidate->own = total_of(candidate);
        best = candidate->own > best ? candidate->own : best;
    }
    beam->num_candidates = beam->num_prefixes;
    return best;
}

// The present prefixes with one more phone, after the same phone only from a blank, but those far behind already.
// best: the highest probability of all candidates so far
static edgeasr_status_t lengthen(const edgeasr_graph_t *graph, edgeasr_beam_t *beam, const edgeasr_heard_t *heard,
                                 double *best)
{
    const edgeasr_lexicon_t *lexicon = &graph->lexicon;
    for (size_t i = 0; i < beam->num_prefixes; i++) {
        const edgeasr_prefix_t *prefix = &beam->prefixes[i];
        const uint64_t next = lexicon->phones_next[prefix->node];
        for (uint64_t left = next & heard->tried; left; left &= left - 1) {
            const int phone = __builtin_ctzll(left), earlier = __builtin_popcountll(next & ((1ull << phone) - 1));
            const int64_t child = (int64_t)lexicon->first_child[prefix->node] + earlier;
            if (!is_within(child, lexicon->num_nodes))
                return EDGEASR_DAMAGED;
            const double floor = *best * graph->limits.least;
            double prob = prefix->label == phone ? prefix->blank : prefix->blank + prefix->token;
            prob *= heard->probs[phone];
            // Half of the exponentials are not needed.
            if (prob <= floor && lexicon->gain[child] <= 0.0f)
                continue;
            prob *= exp((double)lexicon->gain[child]);
            if (!(prob > floor))
                continue;
            if (beam->num_candidates == beam->room)
                return EDGEASR_FULL;
            beam->candidates[beam->num_candidates++] = (edgeasr_candidate_t){
                (uint32_t)i, EDGEASR_LONGER, child, prefix->state, phone, key_of(lexicon, prefix->state, child), 0.0,
                prob, prob};
            *best = prob > *best ? prob : *best;
        }
    }
    return EDGEASR_OK;
}

// Of candidates from so many on, those above a probability, after so many. returns: how many there are then
static size_t keep_above(edgeasr_beam_t *beam, size_t first, size_t last, size_t kept, double floor)
{
    for (size_t i = first; i < last; i++)
        if (beam->candidates[i].own > floor)
            beam->candidates[kept++] = beam->candidates[i];
    return kept;
}

// Of longer prefixes, which begin at one of the candidates, the words that are complete, but those far behind.
// ranges: as for range_of
static edgeasr_status_t complete(const edgeasr_graph_t *graph, edgeasr_beam_t *beam, edgeasr_range_t *ranges,
                                 size_t first_longer, double floor)
{
    const edgeasr_lexicon_t *lexicon = &graph->lexicon;
    const size_t num_both = beam->num_candidates;
    for (size_t i = first_longer; i < num_both; i++) {
        const edgeasr_candidate_t longer = beam->candidates[i];
        const int32_t first = lexicon->first_word[longer.node], last = lexicon->first_word[longer.node + 1];
        if (first < last && (first < 0 || (size_t)last > lexicon->num_words))
            return EDGEASR_DAMAGED;
        for (int32_t place = first; place < last; place++) {
            const uint32_t word = lexicon->words[place];
            float log_prob;
            int64_t after;
            const edgeasr_status_t status = score_word(graph, ranges, longer.state, word, &log_prob, &after);
            if (status != EDGEASR_OK)
                return status;
            // The likeliest word below the node has counted so far.
            log_prob -= lexicon->best[longer.node];
            log_prob *= graph->limits.lm_weight;
            const double prob = longer.token * exp((double)log_prob);
            if (!(prob > floor))
                continue;
            if (beam->num_candidates == beam->room)
                return EDGEASR_FULL;
            beam->candidates[beam->num_candidates++] = (edgeasr_candidate_t){
                longer.source, word, EDGEASR_ROOT, after, longer.label,
                key_of(lexicon, after, (int64_t)lexicon->num_nodes + longer.label), 0.0, prob, prob};
        }
    }
    return EDGEASR_OK;
}

// Candidates that are the same prefix add up in the likeliest of them; the others become impossible.
static void merge(edgeasr_beam_t *beam)
{
    size_t num_slots = 2;
    while (num_slots < 2 * beam->num_candidates)
        num_slots *= 2;
    memset(beam->slots, 0, num_slots * sizeof *beam->slots);
    for (size_t i = 0; i < beam->num_candidates; i++) {
        edgeasr_candidate_t *candidate = &beam->candidates[i], *other;
        size_t slot = ((uint64_t)candidate->key * 0x9e3779b97f4a7c15ull >> 32) & (num_slots - 1);
        while (beam->slots[slot] && beam->candidates[beam->slots[slot] - 1].key != candidate->key)
            slot = (slot + 1) & (num_slots - 1);
        if (beam->slots[slot]) {
            other = &beam->candidates[beam->slots[slot] - 1];
            if (!(candidate->own > other->own)) {
                other = candidate;
                candidate = &beam->candidates[beam->slots[slot] - 1];
            }
            candidate->blank += other->blank;
            candidate->token += other->token;
            other->blank = other->token = 0.0;
        }
        beam->slots[slot] = (uint32_t)(candidate - beam->candidates) + 1;
    }
}

// The nth largest of numbers, counted from 0, which are reordered (Hoare 1961).
static double nth_largest(double *numbers, ptrdiff_t count, ptrdiff_t nth)
{
    ptrdiff_t left = 0, right = count - 1;
    while (left < right) {
        const double pivot = numbers[nth];
        ptrdiff_t i = left, j = right;
        while (i <= j) {
            while (numbers[i] > pivot)
                i++;
            while (numbers[j] < pivot)
                j--;
            if (i <= j) {
                const double number = numbers[i];
                numbers[i++] = numbers[j];
                numbers[j--] = number;
            }
        }
        left = j < nth ? i : left;
        right = nth < i ? j : right;
    }
    return numbers[nth];
}

// The likeliest candidates, most at most, in order. returns: the probability of the best
static double select_likeliest(edgeasr_beam_t *beam, double least, size_t most)
{
    double best = 0.0, last = 0.0;
    size_t count = 0, kept = 0, above = 0;
    for (size_t i = 0; i < beam->num_candidates; i++)
        best = total_of(&beam->candidates[i]) > best ? total_of(&beam->candidates[i]) : best;
    for (size_t i = 0; i < beam->num_candidates; i++)
        if (total_of(&beam->candidates[i]) > best * least) {
            beam->candidates[count] = beam->candidates[i];
            beam->totals[count] = total_of(&beam->candidates[count]);
            count++;
        }
    beam->num_candidates = count;
    if (count <= most)
        return best;
    last = nth_largest(beam->totals, (ptrdiff_t)count, (ptrdiff_t)most - 1);
    for (size_t i = 0; i < count; i++)
        above += total_of(&beam->candidates[i]) > last;
    for (size_t i = 0, equal = above; i < count; i++) {
        const double total = total_of(&beam->candidates[i]);
        if (total > last || (total == last && equal++ < most))
            beam->candidates[kept++] = beam->candidates[i];
    }
    beam->num_candidates = kept;
    return best;
}

// What stays: the last phone of an unfinished word, where it is still heard, lasts longer.
static void hold(edgeasr_prefix_t *prefix, const edgeasr_heard_t *heard, int64_t frame)
{
    const double gain = heard->log_probs[prefix->label] - prefix->sound;
    if (!(prefix->token > prefix->blank) || prefix->node == EDGEASR_ROOT)
        return;
    prefix->last = frame + 1;
    if (gain > 0.0) {
        prefix->sounds += gain;
        prefix->sound += gain;
    }
}

// A prefix that got longer by a phone.
static void go_on(edgeasr_prefix_t *prefix, const edgeasr_candidate_t *candidate, const edgeasr_heard_t *heard,
                  int64_t frame)
{
    if (prefix->node == EDGEASR_ROOT) {
        prefix->first = frame;
        prefix->sounds = 0.0;
    }
    prefix->node = candidate->node;
    prefix->state = candidate->state;
    prefix->label = candidate->label;
    prefix->key = candidate->key;
    prefix->last = frame + 1;
    prefix->sound = heard->log_probs[prefix->label];
    prefix->sounds += prefix->sound;
}

// Make the candidates the present prefixes, and remember the words that have ended. best: the probability of the best
static edgeasr_status_t advance(const edgeasr_graph_t *graph, edgeasr_beam_t *beam, const edgeasr_heard_t *heard,
                                int64_t frame, double best)
{
    edgeasr_prefix_t *before = beam->prefixes;
    beam->behind += log(best);
    for (size_t i = 0; i < beam->num_candidates; i++) {
        const edgeasr_candidate_t *candidate = &beam->candidates[i];
        const edgeasr_prefix_t *source = &before[candidate->source];
        edgeasr_prefix_t *prefix = &beam->others[i];
        *prefix = *source;
        prefix->blank = candidate->blank / best;
        prefix->token = candidate->token / best;
        if (candidate->word == EDGEASR_STAYS) {
            hold(prefix, heard, frame);
            continue;
        }
        go_on(prefix, candidate, heard, frame);
        if (candidate->word == EDGEASR_LONGER)
            continue;
        if (beam->num_records == beam->room)
            return EDGEASR_FULL;
        prefix->record = beam->first_record + (int64_t)beam->num_records;
        beam->records[beam->num_records++] = (edgeasr_record_t){
            candidate->word, source->record, prefix->first, prefix->last,
            prefix->sounds / (graph->lexicon.depth[source->node] + 1), log(prefix->token) + beam->behind};
    }
    beam->num_prefixes = beam->num_candidates;
    beam->prefixes = beam->others;
    beam->others = before;
    return EDGEASR_OK;
}

static edgeasr_status_t accept_frame(const edgeasr_graph_t *graph, edgeasr_beam_t *beam, edgeasr_range_t *ranges,
                                     const edgeasr_heard_t *heard, int64_t frame)
{
    double best = stay(beam, heard);
    edgeasr_status_t status = lengthen(graph, beam, heard, &best);
    if (status != EDGEASR_OK)
        return status;
    const double floor = best * graph->limits.least;
    const size_t num_stays = keep_above(beam, 0, beam->num_prefixes, 0, floor);
    beam->num_candidates = keep_above(beam, beam->num_prefixes, beam->num_candidates, num_stays, floor);
    status = complete(graph, beam, ranges, num_stays, floor);
    if (status != EDGEASR_OK)
        return status;
    merge(beam);
    // Where no prefix can get longer there are no more than before.
    best = select_likeliest(beam, graph->limits.least, heard->tried ? graph->limits.max_prefixes : SIZE_MAX);
    if (beam->num_candidates == 0)
        return EDGEASR_DAMAGED;
    beam->behind -= heard->best;
    return advance(graph, beam, heard, frame, best);
}

static int is_known(const edgeasr_graph_t *graph, const edgeasr_prefix_t *prefix)
{
    return is_within(prefix->node, graph->lexicon.num_nodes) && is_within(prefix->label, graph->lexicon.num_phones) &&
           is_within(prefix->state, (uint64_t)graph->ngrams.num_histories * graph->phrases.num_states);
}

// Take frames.
// log_probs: (num_frames, phones); frames: their numbers
// beam:      prefixes before and after, and the records that are new; lost unless all goes well
// FULL: more room is needed. DAMAGED: tables lead out of each other, or scores are no numbers.
edgeasr_status_t edgeasr_lexicon_accept(const edgeasr_graph_t *graph, edgeasr_beam_t *beam, const double *log_probs,
                                        const int64_t *frames, size_t num_frames)
{
    const size_t num_phones = graph->lexicon.num_phones;
    edgeasr_range_t ranges[EDGEASR_RANGES] = {{0, 0, 0}}; // of EDGEASR_EMPTY, which is not looked up
    edgeasr_heard_t heard;

    if (beam->num_prefixes > beam->room)
        return EDGEASR_FULL;
    if (num_phones == 0 || num_phones > EDGEASR_MAX_PHONES)
        return EDGEASR_DAMAGED;
    for (size_t i = 0; i < beam->num_prefixes; i++)
        if (!is_known(graph, &beam->prefixes[i]))
            return EDGEASR_DAMAGED;
    for (size_t i = 0; i < num_frames; i++) {
        hear(&graph->limits, log_probs + i * num_phones, num_phones, &heard);
        const edgeasr_status_t status = accept_frame(graph, beam, ranges, &heard, frames[i]);
        if (status != EDGEASR_OK)
            return status;
    }
    return EDGEASR_OK;
}
