#include "edgeasr_vad.h"

#include <string.h>

#include "edgeasr_fixed.h"

#define FULL_SCALE_LOG2 30     // of a square of int16
#define POWER_FRACTION_BITS 4  // so that a sum below 1 has a level too
#define DB_OF_LOG2_Q12 12330   // 10 log10(2) dB

// The noise is followed down at once and up slowly: in a pause within a second, during speech by 1 dB a second, so that
// a noise that sets in for good does not count as speech for ever.
#define FALL_SHIFT 1
#define RISE_SHIFT 6
#define RISE_IN_SPEECH ((EDGEASR_VAD_DB << 8) / 100)
#define LOUDEST_FIRST_NOISE (-45 * EDGEASR_VAD_DB)  // what is louder at the start is taken for speech
#define NOISE_Q8(level) ((int32_t)(level) * 256)

int16_t edgeasr_vad_level(const int16_t *samples, size_t n) {
    int64_t sum = 0;
    uint64_t squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += samples[i];
        squares += (uint64_t)((int32_t)samples[i] * samples[i]);
    }
    const uint64_t mean_square = n == 0 ? 0 : (uint64_t)(sum * sum) / n;
    const uint64_t variance = n == 0 ? 0 : ((squares - mean_square) << POWER_FRACTION_BITS) / n;
    const int32_t log2_q15 = (int32_t)edgeasr_log2_q15(variance) - ((FULL_SCALE_LOG2 + POWER_FRACTION_BITS) << 15);
    // Q15 and Q12, and 1/256 dB are wanted.
    return (int16_t)((edgeasr_multiply_q16(log2_q15, DB_OF_LOG2_Q12) + 4) >> 3);
}

edgeasr_status_t edgeasr_vad_init(edgeasr_vad_t *vad, const edgeasr_vad_config_t *config) {
    if (vad == NULL || config == NULL || config->onset_margin < 0 || config->release_margin < 0 ||
        config->onset_frames == 0 || config->hangover_frames == 0) {
        return EDGEASR_BAD_ARG;
    }
    memset(vad, 0, sizeof *vad);
    vad->config = *config;
    return EDGEASR_OK;
}

static void follow_noise(edgeasr_vad_t *vad) {
    const int32_t level_q8 = NOISE_Q8(vad->level);
    if (!vad->started) {
        vad->started = true;
        vad->noise_q8 = vad->level < LOUDEST_FIRST_NOISE ? level_q8 : NOISE_Q8(LOUDEST_FIRST_NOISE);
    } else if (level_q8 < vad->noise_q8) {
        vad->noise_q8 -= (vad->noise_q8 - level_q8) >> FALL_SHIFT;
    } else if (vad->speech) {
        vad->noise_q8 += RISE_IN_SPEECH;
    } else {
        vad->noise_q8 += (level_q8 - vad->noise_q8) >> RISE_SHIFT;
    }
}

edgeasr_status_t edgeasr_vad_accept(edgeasr_vad_t *vad, const int16_t *samples, edgeasr_vad_event_t *event) {
    if (vad == NULL || samples == NULL || event == NULL) {
        return EDGEASR_BAD_ARG;
    }
    *event = EDGEASR_VAD_NONE;
    vad->level = edgeasr_vad_level(samples, EDGEASR_VAD_FRAME_LENGTH);
    follow_noise(vad);
    const int32_t margin = vad->speech ? vad->config.release_margin : vad->config.onset_margin;
    const bool loud = vad->level >= vad->config.quietest && NOISE_Q8(vad->level) >= vad->noise_q8 + NOISE_Q8(margin);
    vad->run = loud == vad->speech ? 0 : (uint16_t)(vad->run + 1u);
    if (vad->run == (vad->speech ? vad->config.hangover_frames : vad->config.onset_frames)) {
        vad->speech = !vad->speech;
        vad->run = 0;
        *event = vad->speech ? EDGEASR_VAD_START : EDGEASR_VAD_END;
    }
    return EDGEASR_OK;
}
