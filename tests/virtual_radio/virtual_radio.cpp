// A radio that is not there: SoapySDR driver "uoiscvirtual".
//
// What is transmitted comes back on receive, in real time, through gains, an attenuator, a carrier offset,
// a delay and noise; and the driver can be told to fail in the ways radios fail. It runs unchanged under
// gr-soapy and, by way of the UHD module of the package uhd-soapysdr, under gr-uhd.
//
// Device arguments (all optional):
//   air=NAME             which air; radios of the same name hear each other, also from other processes
//   clock_hz=64e6        the sample rate is this divided by a whole number; anything else is rounded
//   loss_db=30           attenuation between the two antennas
//   noise_dbfs=-60       noise of the receiver, per sample, in dB of full scale; -inf for none
//   seed=1               of the noise
//   cfo_hz=0             added to the carrier on receive
//   delay_samples=0      on the way
//   dc=0                 local oscillator's leak into the receiver, linear
//   refuse=rate+antenna  settings that throw: rate, frequency, gain, antenna, bandwidth, clock
//   underflow_burst=N    burst N (from 1) runs dry in the middle; its rest is lost
//   late_burst=N         burst N is found to be late and lost as a whole
//   write_errors=1       an underflow is also returned by writeStream, as some drivers do
//   overflow_at_s=T      receiving overflows this long after it began ...
//   overflow_burst=N     or in the middle of the sender's burst N ...
//   overflow_samples=N   ... and loses so many samples (40000)
//   timeless=1           samples come without their time, as from radios that have no clock
//   tx_latency_s=0.1     a burst without a time leaves so long after it was handed over
//   rx_buffer_s=1        who takes samples more slowly than this allows for overflows (2 at most, at 4 Msps)
//   stall_after_s=T      no samples come any more, this long after receiving began
#include "air.hpp"

#include <SoapySDR/Device.hpp>
#include <SoapySDR/Formats.hpp>
#include <SoapySDR/Registry.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

using virtual_radio::Air;
using virtual_radio::Sample;

namespace {

constexpr int64_t mtu = 8192;
constexpr double tx_fifo_s = 2;            // a burst may be handed over so long before its time
constexpr double rx_latency_s = 0.01;      // samples get here so long after their time
constexpr double gain_step_db = 0.5;
constexpr double highest_gain_db = 60;
constexpr double lowest_rate_hz = 100e3, highest_rate_hz = 32e6;
constexpr double lowest_hz = 70e6, highest_hz = 6e9;
constexpr double isolation_db = 40;        // of an antenna port that no cable is on
constexpr size_t most_events = 1024;       // gr-soapy never collects them
constexpr size_t noise_samples = 499'979;  // a prime: the noise comes again, bursts do not in step with it

double number(const SoapySDR::Kwargs& args, const std::string& key, const double otherwise)
{
    const auto found = args.find(key);
    return found == args.end() ? otherwise : std::stod(found->second);
}

double from_db(const double db) { return std::pow(10.0, db / 20); }

// Turns samples by a frequency; the phase depends on the sample's place on the air alone.
void rotate(Sample* samples, const int64_t count, const int64_t index, const double cycles_per_sample)
{
    if (cycles_per_sample == 0) return;
    constexpr int64_t stretch = 1024;
    const std::complex<double> step = std::polar(1.0, 2 * M_PI * cycles_per_sample);
    for (int64_t first = 0; first < count; first += stretch) {
        const double turns = std::fmod(cycles_per_sample * double(index + first), 1.0);
        std::complex<double> phasor = std::polar(1.0, 2 * M_PI * turns);
        for (int64_t i = first; i < std::min(count, first + stretch); i++) {
            samples[i] *= Sample(phasor);
            phasor *= step;
        }
    }
}

// One direction's settings.
struct Path {
    double rate_hz = 1e6;
    double gain_db = 0;
    double bandwidth_hz = 0;
    std::string antenna;
    // The carrier in two steps, as UHD sets them: local oscillator, and digital mixer.
    double oscillator_hz = 1e9;
    double mixer_hz = 0;
};

struct Event {
    int64_t due; // index on the air
    int code;    // what readStreamStatus returns
    int flags;
};

class VirtualRadio : public SoapySDR::Device
{
public:
    explicit VirtualRadio(const SoapySDR::Kwargs& args)
        : _args(args),
          _air(args.count("air") ? args.at("air") : std::to_string(getpid()))
    {
        _paths[SOAPY_SDR_TX].antenna = _paths[SOAPY_SDR_RX].antenna = "TX/RX";
        const double noise_dbfs = args.count("noise_dbfs") && args.at("noise_dbfs") == "-inf"
                                      ? -INFINITY
                                      : number(args, "noise_dbfs", -60);
        std::mt19937_64 generator(uint64_t(number(args, "seed", 1)));
        std::normal_distribution<float> normal(0, float(from_db(noise_dbfs) / std::sqrt(2)));
        _noise.resize(noise_samples);
        if (std::isfinite(noise_dbfs)) {
            for (auto& sample : _noise) sample = {normal(generator), normal(generator)};
        }
    }

    ~VirtualRadio() override
    {
        for (const int direction : {SOAPY_SDR_TX, SOAPY_SDR_RX}) set_streaming(direction, false);
    }

    // --- what it is ---------------------------------------------------------------------------------
    std::string getDriverKey() const override { return "uoiscvirtual"; }
    std::string getHardwareKey() const override { return "virtual radio"; }
    size_t getNumChannels(const int) const override { return 1; }
    bool getFullDuplex(const int, const size_t) const override { return true; }
    std::vector<std::string> getStreamFormats(const int, const size_t) const override { return {SOAPY_SDR_CF32}; }
    std::string getNativeStreamFormat(const int, const size_t, double& full_scale) const override
    {
        full_scale = 1;
        return SOAPY_SDR_CF32;
    }

    // --- settings -----------------------------------------------------------------------------------
    std::vector<std::string> listAntennas(const int direction, const size_t) const override
    {
        if (direction == SOAPY_SDR_TX) return {"TX/RX"};
        return {"TX/RX", "RX2"};
    }
    void setAntenna(const int direction, const size_t channel, const std::string& name) override
    {
        refuse("antenna");
        const auto ports = listAntennas(direction, channel);
        if (std::find(ports.begin(), ports.end(), name) == ports.end()) throw std::runtime_error("no antenna " + name);
        _paths[direction].antenna = name;
    }
    std::string getAntenna(const int direction, const size_t) const override { return _paths[direction].antenna; }

    std::vector<std::string> listGains(const int, const size_t) const override { return {"PGA"}; }
    SoapySDR::Range getGainRange(const int, const size_t) const override { return {0, highest_gain_db, gain_step_db}; }
    SoapySDR::Range getGainRange(const int direction, const size_t channel, const std::string&) const override
    {
        return getGainRange(direction, channel);
    }
    void setGain(const int direction, const size_t, const double value) override
    {
        refuse("gain");
        const double clipped = std::min(std::max(value, 0.0), highest_gain_db);
        _paths[direction].gain_db = std::round(clipped / gain_step_db) * gain_step_db;
    }
    void setGain(const int direction, const size_t channel, const std::string&, const double value) override
    {
        setGain(direction, channel, value);
    }
    double getGain(const int direction, const size_t) const override { return _paths[direction].gain_db; }
    double getGain(const int direction, const size_t, const std::string&) const override
    {
        return _paths[direction].gain_db;
    }

    std::vector<std::string> listFrequencies(const int, const size_t) const override { return {"RF", "BB"}; }
    SoapySDR::RangeList getFrequencyRange(const int, const size_t) const override { return {{lowest_hz, highest_hz}}; }
    SoapySDR::RangeList
    getFrequencyRange(const int direction, const size_t channel, const std::string& name) const override
    {
        const double rate_hz = _paths[direction].rate_hz;
        if (name == "BB") return {{-rate_hz, rate_hz}};
        return getFrequencyRange(direction, channel);
    }
    SoapySDR::ArgInfoList getFrequencyArgsInfo(const int, const size_t) const override
    {
        SoapySDR::ArgInfo offset;
        offset.key = "OFFSET";
        offset.type = SoapySDR::ArgInfo::FLOAT;
        return {offset};
    }
    void setFrequency(const int direction, const size_t channel, const double hz, const SoapySDR::Kwargs& args) override
    {
        const double offset_hz = number(args, "OFFSET", 0);
        setFrequency(direction, channel, "RF", hz + offset_hz, {});
        setFrequency(direction, channel, "BB", offset_hz * mixer_sign(direction), {});
    }
    void setFrequency(const int direction,
                      const size_t,
                      const std::string& name,
                      const double hz,
                      const SoapySDR::Kwargs&) override
    {
        refuse("frequency");
        Path& path = _paths[direction];
        if (name == "RF") {
            path.oscillator_hz = std::min(std::max(hz, lowest_hz), highest_hz);
        } else {
            path.mixer_hz = std::min(std::max(hz, -path.rate_hz), path.rate_hz);
        }
    }
    double getFrequency(const int direction, const size_t) const override { return carrier_hz(direction); }
    double getFrequency(const int direction, const size_t, const std::string& name) const override
    {
        return name == "RF" ? _paths[direction].oscillator_hz : _paths[direction].mixer_hz;
    }

    void setSampleRate(const int direction, const size_t, const double hz) override
    {
        refuse("rate");
        const double clock_hz = getMasterClockRate();
        const double wanted_hz = std::min(std::max(hz, lowest_rate_hz), highest_rate_hz);
        _paths[direction].rate_hz = clock_hz / std::max(1.0, std::round(clock_hz / wanted_hz));
    }
    double getSampleRate(const int direction, const size_t) const override { return _paths[direction].rate_hz; }
    std::vector<double> listSampleRates(const int, const size_t) const override
    {
        std::vector<double> rates;
        for (int divider = 640; divider >= 2; divider--) rates.push_back(getMasterClockRate() / divider);
        return rates;
    }
    SoapySDR::RangeList getSampleRateRange(const int direction, const size_t channel) const override
    {
        SoapySDR::RangeList ranges;
        for (const double rate_hz : listSampleRates(direction, channel)) ranges.push_back({rate_hz, rate_hz});
        return ranges;
    }
    void setBandwidth(const int direction, const size_t, const double hz) override
    {
        refuse("bandwidth");
        _paths[direction].bandwidth_hz = hz;
    }
    double getBandwidth(const int direction, const size_t) const override { return _paths[direction].bandwidth_hz; }
    std::vector<double> listBandwidths(const int, const size_t) const override { return {1e6, 5e6, 10e6, 20e6}; }
    SoapySDR::RangeList getBandwidthRange(const int, const size_t) const override { return {{1e6, 20e6}}; }

    void setMasterClockRate(const double) override { refuse("clock"); }
    double getMasterClockRate() const override { return number(_args, "clock_hz", 64e6); }
    SoapySDR::RangeList getMasterClockRates() const override { return {{getMasterClockRate(), getMasterClockRate()}}; }
    std::vector<std::string> listClockSources() const override { return {"internal", "external"}; }
    void setClockSource(const std::string& source) override
    {
        refuse("clock");
        _clock_source = source;
    }
    std::string getClockSource() const override { return _clock_source; }
    std::vector<std::string> listTimeSources() const override { return {"none", "external"}; }
    void setTimeSource(const std::string& source) override { _time_source = source; }
    std::string getTimeSource() const override { return _time_source; }

    bool hasHardwareTime(const std::string&) const override { return true; }
    long long getHardwareTime(const std::string&) const override { return _air.time_ns() + _time_offset_ns; }
    void setHardwareTime(const long long ns, const std::string&) override { _time_offset_ns = ns - _air.time_ns(); }

    // --- streams ------------------------------------------------------------------------------------
    // A stream is a direction: there is one channel, and its handle only has to be some address.
    SoapySDR::Stream* setupStream(const int direction,
                                  const std::string& format,
                                  const std::vector<size_t>&,
                                  const SoapySDR::Kwargs&) override
    {
        if (format != SOAPY_SDR_CF32) throw std::runtime_error("no stream format " + format + ", only CF32");
        return reinterpret_cast<SoapySDR::Stream*>(&_paths[direction]);
    }
    void closeStream(SoapySDR::Stream* stream) override { set_streaming(direction_of(stream), false); }
    size_t getStreamMTU(SoapySDR::Stream*) const override { return mtu; }

    int activateStream(SoapySDR::Stream* stream, const int flags, const long long time_ns, const size_t) override
    {
        const int direction = direction_of(stream);
        set_streaming(direction, true);
        if (direction == SOAPY_SDR_RX) {
            _rx_first = _rx_next = flags & SOAPY_SDR_HAS_TIME ? _air.to_index(time_ns - _time_offset_ns) : _air.now();
            _rx_overflow_at = overflow_position();
        }
        return 0;
    }
    int deactivateStream(SoapySDR::Stream* stream, const int, const long long) override
    {
        set_streaming(direction_of(stream), false);
        return 0;
    }

    int writeStream(SoapySDR::Stream*,
                    const void* const* buffers,
                    const size_t wanted,
                    int& flags,
                    const long long time_ns,
                    const long timeout_us) override
    {
        const auto* samples = static_cast<const Sample*>(buffers[0]);
        const bool ends = flags & SOAPY_SDR_END_BURST;
        // gr-uhd sends an empty packet when it starts and stops, which comes here as one sample at nowhere.
        if (samples == nullptr) {
            if (ends) _tx_open = false;
            return int(wanted);
        }
        if (!_tx_open) {
            open_burst(flags & SOAPY_SDR_HAS_TIME, time_ns);
        }
        int64_t count = std::min<int64_t>(wanted, mtu);
        if (!_tx_lost) {
            count = std::min(count, wait_for_room(timeout_us));
            if (count <= 0) return SOAPY_SDR_TIMEOUT;
            if (runs_dry() || !transmit(samples, count)) {
                event(_air.now(), SOAPY_SDR_UNDERFLOW, 0);
                _tx_lost = true;
                if (number(_args, "write_errors", 0) != 0) return SOAPY_SDR_UNDERFLOW;
            }
            if (is_middle_of("overflow_burst")) _air.set_overflow(_tx_next);
            _tx_writes++;
        }
        // Time goes on for what is lost as well.
        _tx_next += count;
        if (ends && count == int64_t(wanted)) {
            if (!_tx_lost) event(_tx_next, 0, SOAPY_SDR_END_BURST);
            _tx_open = false;
        }
        return int(count);
    }

    int readStreamStatus(SoapySDR::Stream*, size_t& mask, int& flags, long long& time_ns, const long timeout_us) override
    {
        const int64_t deadline_ns = virtual_radio::monotonic_ns() + timeout_us * 1000;
        while (true) {
            {
                std::lock_guard<std::mutex> lock(_events_mutex);
                if (!_events.empty() && _events.front().due <= _air.now()) {
                    const Event first = _events.front();
                    _events.pop_front();
                    mask = 1;
                    flags = first.flags | SOAPY_SDR_HAS_TIME;
                    time_ns = _air.to_ns(first.due) + _time_offset_ns;
                    return first.code;
                }
            }
            if (virtual_radio::monotonic_ns() >= deadline_ns) return SOAPY_SDR_TIMEOUT;
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }

    int readStream(SoapySDR::Stream*,
                   void* const* buffers,
                   const size_t wanted,
                   int& flags,
                   long long& time_ns,
                   const long timeout_us) override
    {
        const int64_t count = std::min<int64_t>(wanted, mtu);
        const double stall_s = number(_args, "stall_after_s", INFINITY);
        const bool stalled = double(_rx_next - _rx_first) > stall_s * _paths[SOAPY_SDR_RX].rate_hz;
        const int64_t missing_ns = _air.to_ns(_rx_next + count) - _air.time_ns() + int64_t(rx_latency_s * 1e9);
        if (stalled || missing_ns > int64_t(timeout_us) * 1000) {
            std::this_thread::sleep_for(std::chrono::microseconds(timeout_us));
            return SOAPY_SDR_TIMEOUT;
        }
        if (missing_ns > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(missing_ns));
        if (_rx_next >= _rx_overflow_at || _air.take_overflow(_rx_next)) {
            _rx_next += int64_t(number(_args, "overflow_samples", 40'000));
            _rx_overflow_at = INT64_MAX;
            return SOAPY_SDR_OVERFLOW;
        }
        // The same, come by honestly.
        const double buffer = number(_args, "rx_buffer_s", 1) * _paths[SOAPY_SDR_RX].rate_hz;
        if (double(_air.now() - _rx_next) > std::min(buffer, double(Air::ring_samples) / 2)) {
            _rx_next = _air.now() - count;
            return SOAPY_SDR_OVERFLOW;
        }
        receive(static_cast<Sample*>(buffers[0]), count);
        if (number(_args, "timeless", 0) == 0) {
            flags = SOAPY_SDR_HAS_TIME;
            time_ns = _air.to_ns(_rx_next) + _time_offset_ns;
        }
        _rx_next += count;
        return int(count);
    }

private:
    int direction_of(SoapySDR::Stream* stream) const
    {
        return reinterpret_cast<Path*>(stream) == &_paths[SOAPY_SDR_TX] ? SOAPY_SDR_TX : SOAPY_SDR_RX;
    }

    void set_streaming(const int direction, const bool on)
    {
        if (on == _streaming[direction]) return;
        if (on) {
            _air.start_stream(_paths[direction].rate_hz);
        } else {
            _air.stop_stream();
        }
        _streaming[direction] = on;
    }

    void refuse(const std::string& setting) const
    {
        const auto found = _args.find("refuse");
        if (found == _args.end()) return;
        if (("+" + found->second + "+").find("+" + setting + "+") == std::string::npos) return;
        throw std::runtime_error("this radio refuses its " + setting);
    }

    // UHD's signs: the mixer moves a received signal down and a transmitted one up.
    static double mixer_sign(const int direction) { return direction == SOAPY_SDR_RX ? 1 : -1; }
    double carrier_hz(const int direction) const
    {
        const Path& path = _paths[direction];
        return path.oscillator_hz - mixer_sign(direction) * path.mixer_hz;
    }

    // Where the carrier lies relative to the air's, in cycles per sample; out of sight: nothing comes through.
    bool offset(const int direction, double& cycles_per_sample)
    {
        const double carrier = carrier_hz(direction);
        cycles_per_sample = (carrier - _air.centre_hz(carrier)) / _paths[direction].rate_hz;
        return std::abs(cycles_per_sample) < 0.5;
    }

    // --- transmit -----------------------------------------------------------------------------------
    void open_burst(const bool has_time, const int64_t time_ns)
    {
        const int64_t now = _air.now();
        _tx_open = true;
        _tx_bursts++;
        _tx_writes = 0;
        // Without a time: as soon as it can be, behind what is being sent.
        _tx_next = has_time ? _air.to_index(time_ns - _time_offset_ns)
                            : std::max(_tx_next, now + samples_in(number(_args, "tx_latency_s", 0.1)));
        _tx_lost = _tx_next < now || _tx_bursts == int64_t(number(_args, "late_burst", 0));
        if (_tx_lost) event(now, SOAPY_SDR_TIME_ERROR, 0);
    }

    bool runs_dry() const
    {
        return is_middle_of("underflow_burst") || _tx_next < _air.now();
    }

    // Some way into the burst whose number an argument gives.
    bool is_middle_of(const std::string& key) const
    {
        return _tx_bursts == int64_t(number(_args, key, 0)) && _tx_writes == 2;
    }

    int64_t samples_in(const double seconds) const { return int64_t(seconds * _paths[SOAPY_SDR_TX].rate_hz); }

    // Samples that go into the FIFO: it holds what is to be sent within the next half second.
    int64_t wait_for_room(const long timeout_us)
    {
        const int64_t fifo = std::min(samples_in(tx_fifo_s), Air::ring_samples / 4);
        const int64_t deadline_ns = virtual_radio::monotonic_ns() + timeout_us * 1000;
        while (_air.now() + fifo - _tx_next <= 0) {
            if (virtual_radio::monotonic_ns() >= deadline_ns) return 0;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return _air.now() + fifo - _tx_next;
    }

    // False where that instant is over already.
    bool transmit(const Sample* samples, const int64_t count)
    {
        double cycles_per_sample;
        if (!offset(SOAPY_SDR_TX, cycles_per_sample)) return true;
        const auto gain = float(from_db(_paths[SOAPY_SDR_TX].gain_db));
        _work.resize(count);
        for (int64_t i = 0; i < count; i++) _work[i] = gain * clip(samples[i]);
        rotate(_work.data(), count, _tx_next, cycles_per_sample);
        return _air.add(_tx_next, _work.data(), count);
    }

    void event(const int64_t due, const int code, const int flags)
    {
        std::lock_guard<std::mutex> lock(_events_mutex);
        if (_events.size() < most_events) _events.push_back({due, code, flags});
    }

    // --- receive ------------------------------------------------------------------------------------
    int64_t overflow_position() const
    {
        const double at_s = number(_args, "overflow_at_s", INFINITY);
        return std::isfinite(at_s) ? _rx_first + int64_t(at_s * _paths[SOAPY_SDR_RX].rate_hz) : INT64_MAX;
    }

    void receive(Sample* samples, const int64_t count)
    {
        const Path& path = _paths[SOAPY_SDR_RX];
        double cycles_per_sample;
        if (offset(SOAPY_SDR_RX, cycles_per_sample)) {
            _air.read(_rx_next - int64_t(number(_args, "delay_samples", 0)), samples, count);
            rotate(samples, count, _rx_next, number(_args, "cfo_hz", 0) / path.rate_hz - cycles_per_sample);
        } else {
            std::fill_n(samples, count, Sample(0));
        }
        double gain_db = path.gain_db - number(_args, "loss_db", 30);
        if (path.antenna != "RX2") gain_db -= isolation_db;
        const auto gain = float(from_db(gain_db));
        const auto dc = float(number(_args, "dc", 0));
        const double leak = (path.oscillator_hz - carrier_hz(SOAPY_SDR_RX)) / path.rate_hz;
        for (int64_t first = 0; first < count; first += mtu) {
            Sample line[mtu];
            const int64_t piece = std::min(mtu, count - first);
            if (dc != 0) {
                std::fill_n(line, piece, Sample(dc));
                rotate(line, piece, _rx_next + first, leak);
            }
            size_t place = size_t(_rx_next + first) % noise_samples;
            for (int64_t i = 0; i < piece; i++) {
                Sample& sample = samples[first + i];
                sample = gain * sample + _noise[place];
                if (dc != 0) sample += line[i];
                sample = clip(sample);
                if (++place == noise_samples) place = 0;
            }
        }
    }

    // Converters end at full scale.
    static Sample clip(const Sample sample)
    {
        return {std::min(std::max(sample.real(), -1.f), 1.f), std::min(std::max(sample.imag(), -1.f), 1.f)};
    }

    const SoapySDR::Kwargs _args;
    Air _air;
    Path _paths[2];
    bool _streaming[2] = {false, false};
    std::string _clock_source = "internal", _time_source = "none";
    std::atomic<int64_t> _time_offset_ns{0};
    std::vector<Sample> _noise, _work;

    bool _tx_open = false, _tx_lost = false;
    int64_t _tx_next = 0, _tx_bursts = 0, _tx_writes = 0;
    std::mutex _events_mutex;
    std::deque<Event> _events;

    int64_t _rx_first = 0, _rx_next = 0, _rx_overflow_at = INT64_MAX;
};

SoapySDR::KwargsList find(const SoapySDR::Kwargs& args)
{
    // Only who asks for this radio by name gets it.
    if (args.count("driver") == 0 || args.at("driver") != "uoiscvirtual") return {};
    SoapySDR::Kwargs found = args;
    found["label"] = "virtual radio";
    return {found};
}

SoapySDR::Device* make(const SoapySDR::Kwargs& args) { return new VirtualRadio(args); }

const SoapySDR::Registry registration("uoiscvirtual", &find, &make, SOAPY_SDR_ABI_VERSION);

} // namespace
