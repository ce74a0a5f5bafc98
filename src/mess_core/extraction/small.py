"""The small piano encoder: log-mel, three convolutions, and a transformer of six pre-norm layers.

Trained with `mess_core.training`. Attention and feed-forward follow HuBERT with
``do_stable_layer_norm`` (Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by
Masked Prediction of Hidden Units", TASLP 2021).
"""

__all__ = ["DIMS", "HOP", "LATER", "LAYERS", "SAMPLE_RATE", "SmallEncoder", "SmallStates"]

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import melscale_fbanks

SAMPLE_RATE = 24_000
HOP = 320  # 75 frames/s, as MERT
#: Hidden states (with the input of the transformer), and numbers in each.
LAYERS, DIMS = 7, 160

_FFT = 2048
_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 229, 27.5, 11_000.0
_CHANNELS = (24, 32, 48)
_HEADS, _FEED_FORWARD = 5, 640
_TAPS, _GROUPS = 128, 16
# A frame of HuBERT's convolutions is centred 200 samples after its start, 0.625 of a hop.
LATER = 0.625
_INIT_STD = 0.02  # of the transformer's matrices, as in BERT and HuBERT


class SmallEncoder(nn.Module):
    """Windows of audio [shape=(n, samples)] at 24 kHz to all hidden states.

    Absolute level is kept: nothing is normalised by window. State 0 is the transformer's input
    before positions are added, state ``i`` the output of layer ``i``, before the final norm, which
    only heads in training could read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential()
        for inputs, outputs in zip((1, *_CHANNELS), _CHANNELS, strict=False):
            stride = (1, 1) if inputs == 1 else (2, 1)
            self.front.append(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1))
            self.front.extend([nn.BatchNorm2d(outputs), nn.GELU()])
        self.proj = nn.Linear(_CHANNELS[-1] * -(-_BANDS // 4), DIMS)
        self.norm = nn.LayerNorm(DIMS)
        self.encoder = _Transformer()
        bands = melscale_fbanks(
            _FFT // 2 + 1, _LOWEST_HZ, _HIGHEST_HZ, _BANDS, SAMPLE_RATE, norm="slaney"
        )
        self.bands: Tensor
        self.window: Tensor
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)

    def log_mel(self, windows: Tensor) -> Tensor:
        """Return the logarithmic mel spectrogram [shape=(n, bands, frames)]."""
        padded = functional.pad(windows.unsqueeze(1), (_FFT // 2, _FFT // 2), "reflect").squeeze(1)
        spectrum = torch.stft(
            padded, _FFT, HOP, window=self.window, center=False, return_complex=True
        ).abs()
        mel = torch.log10(self.bands.T @ spectrum + 1e-4) * 0.8 + 1.6
        return (1 - LATER) * mel[..., :-1] + LATER * mel[..., 1:]

    def forward(self, windows: Tensor) -> list[Tensor]:
        """Return the hidden states [shape=(n, frames, DIMS)], `LAYERS` of them."""
        return self.states(self.log_mel(windows))

    def states(self, log_mel: Tensor) -> list[Tensor]:
        """Return the hidden states of a spectrogram; see `forward`."""
        maps = self.front(log_mel.unsqueeze(1))
        state = self.norm(self.proj(maps.permute(0, 3, 1, 2).flatten(2)))
        return [state, *self.encoder(state)]


class SmallStates(nn.Module):
    """An encoder whose output is as that of `torch_engine.HiddenStates`."""

    def __init__(self, model: SmallEncoder, *, raw: bool = False) -> None:
        super().__init__()
        self.model = model
        self.raw = raw

    def forward(self, windows: Tensor) -> tuple[Tensor, ...]:
        """Return the means over time [shape=(n, layers, dims)], with ``raw`` all frames too."""
        states = self.model(windows)
        pooled = torch.stack([state.mean(1) for state in states], 1)
        if not self.raw:
            return (pooled,)
        # Transposed and back: OpenVINO 2026.4 overwrites state 0 where states are stacked as they
        # are (it adds the positions in place).
        return pooled, torch.stack([state.transpose(1, 2) for state in states], 1).transpose(2, 3)


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pos_conv_embed = _Positions()
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS - 1))
        self.layer_norm = nn.LayerNorm(DIMS)
        for part in self.layers.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=_INIT_STD)
                nn.init.zeros_(part.bias)

    def forward(self, state: Tensor) -> list[Tensor]:
        state = state + self.pos_conv_embed(state)
        states = []
        for layer in self.layers:
            state = layer(state)
            states.append(state)
        return states


class _Positions(nn.Module):
    """A grouped convolution over time whose weights are stored as direction and length."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv1d(DIMS, DIMS, _TAPS, padding=_TAPS // 2, groups=_GROUPS)
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)

    def forward(self, state: Tensor) -> Tensor:
        # An even kernel gives a frame too many.
        return functional.gelu(self.conv(state.transpose(1, 2))[..., :-1]).transpose(1, 2)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(DIMS)
        self.attention = _Attention()
        self.final_layer_norm = nn.LayerNorm(DIMS)
        self.feed_forward = nn.Sequential(
            OrderedDict(
                intermediate_dense=nn.Linear(DIMS, _FEED_FORWARD),
                activation=nn.GELU(),
                output_dense=nn.Linear(_FEED_FORWARD, DIMS),
            )
        )

    def forward(self, state: Tensor) -> Tensor:
        state = state + self.attention(self.layer_norm(state))
        return state + self.feed_forward(self.final_layer_norm(state))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(DIMS, DIMS), nn.Linear(DIMS, DIMS)
        self.v_proj, self.out_proj = nn.Linear(DIMS, DIMS), nn.Linear(DIMS, DIMS)

    def forward(self, state: Tensor) -> Tensor:
        n, frames, _ = state.shape
        queries, keys, values = (
            project(state).view(n, frames, _HEADS, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        heads = functional.scaled_dot_product_attention(queries, keys, values)
        result: Tensor = self.out_proj(heads.transpose(1, 2).reshape(n, frames, DIMS))
        return result
