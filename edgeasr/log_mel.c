// Log-mel energies of several frames at once: each lane of a vector is a frame, so that a transform is the same
// instructions for all of them, and nothing is ever exchanged between lanes. In double precision up to the powers: in
// single, quiet bands beside a loud tone would be off by a thousandth.

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 8
#elif defined(__AVX__)
#define LANES 4
#else
#define LANES 2
#endif
typedef double frames_t __attribute__((vector_size(LANES * 8)));

// As log_mel_native.py fills it; arrays are of these sizes.
typedef struct {
    int64_t win_length, hop_length, num_mels;
    int64_t half;                   // of the transform's length, a power of two
    double floor;
    const float *window;            // win_length
    const double *cosines, *sines;  // half: of k / (2 half) turns
    const int64_t *reversed;        // half: the bits of each number in the other order
    const int64_t *firsts, *counts; // num_mels: the bins that a band reads
    const float *weights;           // of all bands, one behind the other
} edgeasr_log_mel_t;

// In place, decimation in frequency: what comes out stands where the bits of its number are reversed.
static void transform(const edgeasr_log_mel_t *c, frames_t *re, frames_t *im)
{
    for (int64_t length = c->half; length > 1; length /= 2) {
        const int64_t middle = length / 2, turn = 2 * c->half / length;
        for (int64_t first = 0; first < c->half; first += length)
            for (int64_t k = 0; k < middle; k++) {
                frames_t *a = re + first + k, *b = im + first + k;
                const double cosine = c->cosines[k * turn], sine = c->sines[k * turn];
                const frames_t x = a[0] - a[middle], y = b[0] - b[middle];
                a[0] += a[middle];
                b[0] += b[middle];
                a[middle] = x * cosine + y * sine;
                b[middle] = y * cosine - x * sine;
            }
    }
}

// The power of each bin of a transform of real numbers, of which even ones were real parts and odd ones imaginary.
static void powers(const edgeasr_log_mel_t *c, const frames_t *re, const frames_t *im, frames_t *power)
{
    for (int64_t k = 0; k <= c->half; k++) {
        const int64_t i = c->reversed[k % c->half], j = c->reversed[(c->half - k) % c->half];
        const frames_t even_re = 0.5 * (re[i] + re[j]), even_im = 0.5 * (im[i] - im[j]);
        const frames_t odd_re = 0.5 * (im[i] + im[j]), odd_im = 0.5 * (re[j] - re[i]);
        const double cosine = k < c->half ? c->cosines[k] : -1.0, sine = k < c->half ? c->sines[k] : 0.0;
        const frames_t x = even_re + cosine * odd_re + sine * odd_im, y = even_im + cosine * odd_im - sine * odd_re;
        power[k] = x * x + y * y;
    }
}

// samples: of all frames, (frames - 1) * hop_length + win_length; energies: (frames, num_mels), with the floor, whose
// logarithm is the caller's to take
void edgeasr_mel_energies(const edgeasr_log_mel_t *c, const float *samples, int64_t frames, float *energies)
{
    frames_t re[c->half], im[c->half], power[c->half + 1]; // 50 KB where a transform is of 512 samples
    for (int64_t first = 0; first < frames; first += LANES) {
        const int64_t many = frames - first < LANES ? frames - first : LANES;
        memset(re, 0, (size_t)c->half * sizeof *re);
        memset(im, 0, (size_t)c->half * sizeof *im);
        for (int64_t l = 0; l < many; l++) {
            const float *frame = samples + (first + l) * c->hop_length;
            double *parts[2] = {(double *)re + l, (double *)im + l};
            for (int64_t n = 0; n < c->win_length; n++)
                parts[n % 2][n / 2 * LANES] = frame[n] * c->window[n]; // in single precision, as in training
        }
        transform(c, re, im);
        powers(c, re, im, power);
        const float *weights = c->weights;
        for (int64_t band = 0; band < c->num_mels; band++) {
            const frames_t *bins = power + c->firsts[band];
            frames_t sum = {0};
            for (int64_t i = 0; i < c->counts[band]; i++)
                sum += (double)*weights++ * bins[i];
            for (int64_t l = 0; l < many; l++)
                energies[(first + l) * c->num_mels + band] = (float)(sum[l] + c->floor);
        }
    }
}
