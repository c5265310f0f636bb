/* libjpeg-turbo's own interface behind four functions that return instead of calling exit().
 *
 * An error of the library jumps back into the function below that called it (setjmp), over C frames
 * only: the library calls nothing of Rust. Every function that calls the library sets its own jump
 * first. After a failure a handle is good for `tldr_jpeg_close` only.
 *
 * Damage fails at once, by the code of the library's warning; oddities that change no pixel do not.
 * What the library does not notice is looked for here: see `end_scan`, `every_scan_seen` and `on_empty`. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#ifndef WITH_SIMD
#error "libjpeg-turbo was built without SIMD: install nasm (Debian and Ubuntu: apt-get install nasm) and build again"
#endif
#if LIBJPEG_TURBO_VERSION_NUMBER < 3000000
#error "libjpeg-turbo 3 is needed: unset TURBOJPEG_SOURCE, so that turbojpeg-sys builds its own"
#endif

/* Kinds of failure, as in lib.rs. */
enum { NONE, DAMAGED, TOO_LARGE, OVER_LIMIT, UNSUPPORTED };

/* So many zero bytes in a row do not occur in coded data, but where they stand for flat blocks: four
 * blocks or more whose every coefficient were the same number. */
#define ZERO_RUN 128
/* Zero bytes that an arithmetic decoder may need behind its data: an encoder leaves zeros off at their
 * end, of which there are two or three. */
#define SPARE 16
/* Pixels that are decoded beside a region: upsampling looks at neighbours. */
#define MARGIN 2
/* Least width of a region: some upsamplers do without neighbours in pictures a few pixels wide. */
#define MIN_WIDTH 64
/* Rows asked for at a time. */
#define ROWS 16

typedef struct {
  uint32_t width, height;
  int32_t scalable; /* whether it can be decoded at 1/2, 1/4 and 1/8 */
} tldr_jpeg_header;

typedef struct {
  uint32_t left, top, width, height;
} tldr_jpeg_region;

typedef struct {
  struct jpeg_decompress_struct d;
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  jmp_buf escape;
  int kind;
  char message[JMSG_LENGTH_MAX];
  /* What tldr_jpeg_read delivers. */
  tldr_jpeg_region region;
  int max_scans;
  const JOCTET *end; /* of the bytes */
  int several; /* scans, all read by tldr_jpeg_start */
  /* The scan that is read, and what was seen of it. */
  int scan;
  unsigned components_seen; /* of all scans, one bit each */
  int zeros_are_flat;
  const JOCTET *scan_start, *scan_end;
  unsigned long left_over;
  /* Where its arithmetic-coded data end; NULL where it is coded otherwise. */
  const JOCTET *window_end;
  size_t behind_window;
  int spare_given;
} tldr_jpeg;

static tldr_jpeg *of(j_common_ptr c) { return (tldr_jpeg *)c->client_data; }

static void fail(tldr_jpeg *j, int kind, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  j->kind = kind;
  vsnprintf(j->message, sizeof j->message, format, arguments);
  va_end(arguments);
  longjmp(j->escape, 1);
}

static void on_fatal(j_common_ptr c) {
  tldr_jpeg *j = of(c);
  switch (c->err->msg_code) {
  case JERR_IMAGE_TOO_BIG: j->kind = TOO_LARGE; break;
  case JERR_NO_BACKING_STORE: case JERR_OUT_OF_MEMORY: j->kind = OVER_LIMIT; break;
  default: j->kind = UNSUPPORTED;
  }
  c->err->format_message(c, j->message);
  longjmp(j->escape, 1);
}

static void on_message(j_common_ptr c, int level) {
  tldr_jpeg *j = of(c);
  if (level >= 0) return; /* a trace */
  switch (c->err->msg_code) {
  case JWRN_EXTRANEOUS_DATA: j->left_over += (unsigned)c->err->msg_parm.i[0]; break;
  case JWRN_JFIF_MAJOR: case JWRN_ADOBE_XFORM: case JWRN_BOGUS_ICC: case JWRN_NOT_SEQUENTIAL: break;
  default: /* JPEG_EOF, HIT_MARKER, HUFF_BAD_CODE, ARITH_BAD_CODE, MUST_RESYNC, BOGUS_PROGRESSION */
    j->kind = DAMAGED;
    c->err->format_message(c, j->message);
    longjmp(j->escape, 1);
  }
}

/* Whether all-zero bits of the scan are blocks like the one before, by the code that is all zeros in
 * each of its Huffman tables. */
static int zeros_are_flat(j_decompress_ptr d) {
  if (d->arith_code) return 0;
  for (int i = 0; i < d->comps_in_scan; i++) {
    const jpeg_component_info *component = d->cur_comp_info[i];
    const JHUFF_TBL *dc = d->dc_huff_tbl_ptrs[component->dc_tbl_no & (NUM_HUFF_TBLS - 1)];
    const JHUFF_TBL *ac = d->ac_huff_tbl_ptrs[component->ac_tbl_no & (NUM_HUFF_TBLS - 1)];
    int lossless = d->Ss > 0 && d->Se == 0;
    int has_dc = lossless || !d->progressive_mode || (d->Ss == 0 && d->Ah == 0);
    int has_ac = !lossless && (!d->progressive_mode || d->Ss > 0);
    if (has_dc && !(dc && dc->huffval[0] == 0)) return 0;
    if (has_ac && !(ac && ac->huffval[0] == 0)) return 0;
  }
  return 1;
}

static int has_zero_run(const JOCTET *start, const JOCTET *end) {
  const JOCTET *probe = start;
  for (; probe < end && end - probe > ZERO_RUN / 2; probe += ZERO_RUN / 2) {
    if (*probe != 0) continue;
    const JOCTET *first = probe, *last = probe + 1;
    while (first > start && first[-1] == 0 && last - first < ZERO_RUN) first--;
    while (last < end && *last == 0 && last - first < ZERO_RUN) last++;
    if (last - first >= ZERO_RUN) return 1;
  }
  return 0;
}

/* How far the scan was read. */
static void note_position(tldr_jpeg *j) {
  const JOCTET *at = j->d.src->next_input_byte;
  if (j->spare_given) at = j->window_end;
  if (at > j->scan_end) j->scan_end = at;
}

/* To be called where d stands behind the header of a scan. */
static void begin_scan(tldr_jpeg *j) {
  j_decompress_ptr d = &j->d;
  struct jpeg_source_mgr *source = d->src;
  j->scan = d->input_scan_number;
  if (j->scan > j->max_scans)
    fail(j, OVER_LIMIT, "more than %d scans", j->max_scans);
  for (int i = 0; i < d->comps_in_scan; i++)
    j->components_seen |= 1u << d->cur_comp_info[i]->component_index;
  j->zeros_are_flat = zeros_are_flat(d);
  j->scan_start = j->scan_end = source->next_input_byte;
  j->left_over = 0;
  j->window_end = NULL;
  j->spare_given = 0;
  if (!d->arith_code) return;
  /* The source ends at the marker behind the data until the scan is decoded: see on_empty. */
  const JOCTET *end = source->next_input_byte + source->bytes_in_buffer, *at = source->next_input_byte;
  while (at < end) {
    at = memchr(at, 0xFF, (size_t)(end - at));
    if (!at || at + 1 >= end) { at = end; break; }
    if (at[1] != 0 && at[1] != 0xFF && (at[1] & 0xF8) != JPEG_RST0) break;
    at += at[1] == 0xFF ? 1 : 2;
  }
  j->window_end = at;
  j->behind_window = (size_t)(end - at);
  source->bytes_in_buffer = (size_t)(at - source->next_input_byte);
}

/* Looks for zero bytes where coded data should be: what a hole in a file reads as. The library takes
 * them for coefficients. Where zeros may be flat blocks they are damage if the scan had data left over.
 *
 * A scan of several may end early in a hole, where a few zero bits are a long run of ends of blocks: then
 * the hole is in what it left over. */
static void end_scan(tldr_jpeg *j) {
  const JOCTET *end = j->scan_end;
  if (j->several && j->left_over < (size_t)(j->end - end)) end += j->left_over;
  if (!has_zero_run(j->scan_start, end)) return;
  if (!j->zeros_are_flat || j->left_over > 8)
    fail(j, DAMAGED, "%d zero bytes and more in the coded data of scan %d", ZERO_RUN, j->scan);
}

/* Whether the scans hold the whole picture. What is cut between two scans reads as a legal file: a progressive one
 * may leave coefficients out, and the library smooths over what it lacks. No encoder does so by itself. */
static void every_scan_seen(tldr_jpeg *j) {
  j_decompress_ptr d = &j->d;
  for (int i = 0; i < d->num_components; i++)
    if (!(j->components_seen >> i & 1))
      fail(j, DAMAGED, "no scan holds component %d of %d", i + 1, d->num_components);
  if (!d->progressive_mode) return;
  for (int i = 0; i < d->num_components; i++)
    for (int k = 0; k < DCTSIZE2; k++)
      if (d->coef_bits[i][k] != 0)
        fail(j, DAMAGED, "the last scans are missing: coefficient %d of component %d of %d is %s", k, i + 1,
             d->num_components, d->coef_bits[i][k] < 0 ? "in none" : "not refined to its last bit");
}

/* The source has no bytes left. Real data never run out before their end marker.
 *
 * An arithmetic decoder takes zeros for what lies behind its data, silently and for ever. It gets them
 * from here, so that it can be seen how many it takes. */
static boolean on_empty(j_decompress_ptr d) {
  tldr_jpeg *j = of((j_common_ptr)d);
  static const JOCTET spare[SPARE];
  if (j->window_end) {
    int decoding = d->input_iMCU_row < d->total_iMCU_rows;
    if (decoding && j->spare_given)
      fail(j, DAMAGED, "Corrupt JPEG data: premature end of arithmetic-coded data");
    if (decoding) {
      j->spare_given = 1;
      d->src->next_input_byte = spare;
      d->src->bytes_in_buffer = SPARE;
      return TRUE;
    }
    d->src->next_input_byte = j->window_end;
    d->src->bytes_in_buffer = j->behind_window;
    j->scan_end = j->window_end;
    j->window_end = NULL;
    j->spare_given = 0;
    if (j->behind_window > 0) return TRUE;
  }
  WARNMS(d, JWRN_JPEG_EOF); /* does not return */
  return FALSE;
}

static void on_progress(j_common_ptr c) {
  tldr_jpeg *j = of(c);
  if (j->d.input_scan_number != j->scan) {
    end_scan(j);
    begin_scan(j);
  } else {
    note_position(j);
  }
}

/* Whether a part of the picture can be decoded to the pixels it has in the whole: where the library
 * skips and crops, and in the samplings of photographs. */
static int can_crop(j_decompress_ptr d) {
  const jpeg_component_info *c = d->comp_info;
  int lossless = d->Ss > 0 && d->Se == 0 && !d->progressive_mode;
  if (lossless) return 0;
  for (int i = 1; i < d->num_components; i++)
    if (c[i].h_samp_factor != 1 || c[i].v_samp_factor != 1) return 0;
  if (d->num_components != 3 && (c[0].h_samp_factor != 1 || c[0].v_samp_factor != 1)) return 0;
  if (c[0].h_samp_factor == 3 || c[0].v_samp_factor > 2) return 0;
  return 1;
}

/* Opens a JPEG whose bytes must outlive the handle, and reads its header. NULL where memory ran out;
 * a failure is told by tldr_jpeg_failure. */
tldr_jpeg *tldr_jpeg_open(const uint8_t *bytes, size_t length, tldr_jpeg_header *header) {
  tldr_jpeg *j = calloc(1, sizeof *j);
  if (!j) return NULL;
  j->d.err = jpeg_std_error(&j->errors);
  j->errors.error_exit = on_fatal;
  j->errors.emit_message = on_message;
  j->d.client_data = j;
  if (setjmp(j->escape)) {
    header->width = j->d.image_width;
    header->height = j->d.image_height;
    return j;
  }
  jpeg_create_decompress(&j->d);
  jpeg_mem_src(&j->d, bytes, length);
  j->end = bytes + length;
  j->d.src->fill_input_buffer = on_empty;
  jpeg_read_header(&j->d, TRUE);
  header->width = j->d.image_width;
  header->height = j->d.image_height;
  if (j->d.num_components != 1 && j->d.num_components != 3 && j->d.num_components != 4)
    fail(j, UNSUPPORTED, "expected 1 component (grey), 3 (colour) or 4 (CMYK), found %d", j->d.num_components);
  header->scalable = !(j->d.Ss > 0 && j->d.Se == 0 && !j->d.progressive_mode);
  return j;
}

/* Gets ready to decode at 1 / denominator. `region` is what is needed, in pixels of the picture at that
 * scale, and becomes what tldr_jpeg_read delivers, which holds it. Reads all scans where there are
 * several. Returns 0, or 1 after a failure. */
int tldr_jpeg_start(tldr_jpeg *j, unsigned denominator, size_t max_memory, int max_scans,
                    tldr_jpeg_region *region) {
  j_decompress_ptr d = &j->d;
  if (setjmp(j->escape)) return 1;
  d->scale_num = 1;
  d->scale_denom = denominator;
  d->dct_method = JDCT_ISLOW;
  d->out_color_space = d->num_components == 4 ? JCS_CMYK : JCS_RGB;
  d->mem->max_memory_to_use = (long)max_memory;
  j->max_scans = max_scans;
  j->several = jpeg_has_multiple_scans(d);
  begin_scan(j);
  j->progress.progress_monitor = on_progress;
  d->progress = &j->progress;
  jpeg_start_decompress(d);
  if (j->several) end_scan(j);
  every_scan_seen(j);
  if (region->width == 0 || region->height == 0 || region->left > d->output_width ||
      region->width > d->output_width - region->left || region->top > d->output_height ||
      region->height > d->output_height - region->top)
    fail(j, UNSUPPORTED, "a region outside the picture of %ux%u", d->output_width, d->output_height);
  if (can_crop(d)) {
    JDIMENSION left = region->left > MARGIN ? region->left - MARGIN : 0;
    JDIMENSION right = region->left + region->width + MARGIN;
    if (right > d->output_width) right = d->output_width;
    if (right - left < MIN_WIDTH) {
      right = left + MIN_WIDTH < d->output_width ? left + MIN_WIDTH : d->output_width;
      if (right - left < MIN_WIDTH) left = right > MIN_WIDTH ? right - MIN_WIDTH : 0;
    }
    JDIMENSION width = right - left;
    jpeg_crop_scanline(d, &left, &width);
    region->left = left;
    region->width = width;
  } else {
    region->left = region->top = 0;
    region->width = d->output_width;
    region->height = d->output_height;
  }
  j->region = *region;
  return 0;
}

/* Adobe's inverted CMYK to RGB, rounded as PIL does. */
static void cmyk_to_rgb(const JSAMPLE *cmyk, uint8_t *rgb, size_t pixels) {
  for (size_t i = 0; i < pixels; i++, cmyk += 4, rgb += 3)
    for (int c = 0; c < 3; c++) {
      unsigned product = (unsigned)cmyk[c] * cmyk[3] + 128;
      rgb[c] = (uint8_t)((product + (product >> 8)) >> 8);
    }
}

/* Reads the next row into `row` or, as CMYK, into `spare` and from there. */
static void read_rows(tldr_jpeg *j, uint8_t *out, JSAMPROW spare, JDIMENSION rows) {
  j_decompress_ptr d = &j->d;
  size_t stride = (size_t)j->region.width * 3;
  for (JDIMENSION done = 0; done < rows;) {
    JSAMPROW pointers[ROWS];
    JDIMENSION count = 1;
    if (d->num_components == 4) {
      pointers[0] = spare;
    } else {
      count = rows - done < ROWS ? rows - done : ROWS;
      for (JDIMENSION i = 0; i < count; i++) pointers[i] = out + (done + i) * stride;
    }
    JDIMENSION read = jpeg_read_scanlines(d, pointers, count);
    if (read == 0) fail(j, UNSUPPORTED, "the decoder makes no progress");
    if (d->num_components == 4) cmyk_to_rgb(spare, out + done * stride, j->region.width);
    done += read;
  }
}

/* Decodes the region of tldr_jpeg_start to `out`, RGB rows without padding, and the rest of the data
 * as far as it takes to know that they are whole. Returns 0, or 1 after a failure. */
int tldr_jpeg_read(tldr_jpeg *j, uint8_t *out, size_t capacity) {
  j_decompress_ptr d = &j->d;
  if (setjmp(j->escape)) return 1;
  if ((size_t)j->region.width * j->region.height > capacity / 3)
    fail(j, UNSUPPORTED, "a buffer of %zu bytes for %ux%u pixels", capacity, j->region.width, j->region.height);
  JSAMPROW spare = d->mem->alloc_large((j_common_ptr)d, JPOOL_IMAGE, (size_t)j->region.width * 4);
  if (j->region.top > 0) jpeg_skip_scanlines(d, j->region.top);
  read_rows(j, out, spare, j->region.height);
  /* Of several scans everything was read by tldr_jpeg_start. */
  if (j->several) return 0;
  JDIMENSION left = d->output_height - d->output_scanline;
  /* Skipping to the end would skip the data too: the last row is read. */
  if (left > 1) jpeg_skip_scanlines(d, left - 1);
  for (; d->output_scanline < d->output_height;)
    if (jpeg_read_scanlines(d, &spare, 1) == 0) fail(j, UNSUPPORTED, "the decoder makes no progress");
  note_position(j);
  jpeg_finish_decompress(d);
  end_scan(j);
  return 0;
}

/* What failed: its kind, and `message` in words. */
int tldr_jpeg_failure(const tldr_jpeg *j, const char **message) {
  *message = j->message;
  return j->kind;
}

void tldr_jpeg_close(tldr_jpeg *j) {
  jpeg_destroy_decompress(&j->d);
  free(j);
}
